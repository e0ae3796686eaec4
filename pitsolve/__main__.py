"""The command line: ``python -m pitsolve info`` and ``python -m pitsolve demo``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return value


def _parser() -> tuple[_Parser, _Parser]:
    parser = _Parser(prog="python -m pitsolve", description="Sequential models in parallel over time.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,demo}")
    commands.add_parser("info", help="versions, threads, vector width, cache and CUDA device",
                        description="Print versions, threads, vector width, the cache of compiled code and the CUDA device.")
    demo = commands.add_parser(
        "demo", help="a GRU on one long sequence by every method",
        description="Evaluate and differentiate a GRU (float32, random parameters) on one long sequence by every method.")
    demo.add_argument("--steps", type=_positive, metavar="T",
                      help="length of the sequence (default: 16384, or all steps of --input)")
    demo.add_argument("--hidden", type=_positive, default=32, metavar="N", help="units of the GRU (default: 32)")
    demo.add_argument("--input", metavar="FILE", help="your own sequence, .npz or .npy, shape (T, m) or (N, T, m)")
    demo.add_argument("--key", metavar="X", help="name of the array in an .npz file")
    demo.add_argument("--plot", metavar="PATH", default="pitsolve-demo.png",
                      help="figure of the convergence histories, .png, .pdf or .svg (default: pitsolve-demo.png)")
    return parser, demo


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what the user got wrong ends in ``SystemExit`` with code 2."""
    parser, demo_parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command == "info":
        from pitsolve.info import info

        print(info())
        return 0
    from pitsolve.demo import demo
    from pitsolve.demo_input import UserError

    try:
        demo(chosen.steps, chosen.hidden, chosen.input, chosen.key, chosen.plot)
    except UserError as error:
        demo_parser.error(str(error))
    except MemoryError as error:
        demo_parser.error(f"not enough memory ({error}); try fewer --steps or --hidden")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    # Threads that wait by spinning hold up each other where other programs run too, and the times would tell of that.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(main())
