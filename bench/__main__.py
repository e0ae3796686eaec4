"""Run one benchmark, print its table, write its numbers: ``python -m bench NAME [--quick] [--output DIR]``."""

import argparse
import importlib
from pathlib import Path
from typing import Any

from bench import machine

BENCHMARKS = {
    "machine": "facts and limits of this machine",
    "scan": "affine scans against memory bandwidth and jax.lax.associative_scan",
    "recurrent": "GRU: every method against torch.nn.GRU, JAX DEER and our own sequential loop",
    "multigrid": "one V-cycle of mgrit against PyMGRIT and NumPy; with --figure, residual against work of all methods",
    "windows": "shooting against the loop and torch.nn.GRU; all methods on networks of short and long memory",
    "schwarz": "windows in least squares against SciPy's direct solvers and smoothers; a model of scaling, drawn with --figure",
    "gpu": "the CUDA backend on this card: checks, bandwidth, JAX, cuDNN; less than eight minutes",
    "networks": "a bottleneck unit against PyTorch; the gradient of ResNet-1001 in N subnetworks, with --figure",
    "startup": "import, first solve with a warm and with an empty disk cache",
}
DRAWING = ("multigrid", "networks", "schwarz")
SAVING = ("gpu",)  # write what they have while they run


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the benchmark it names."""
    names = "\n".join(f"  {name:10s} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=f"benchmarks:\n{names}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", choices=list(BENCHMARKS), help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run, not how fast")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"), metavar="DIR",
                        help="folder of the JSON file (default: bench/results)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="also draw a figure (multigrid, schwarz)")
    chosen = parser.parse_args(arguments)
    if chosen.figure and chosen.name not in DRAWING:
        parser.error(f"--figure: {chosen.name} draws none")
    facts = machine.facts()

    def save(result: dict[str, Any]) -> Path:
        numbers = {key: value for key, value in result.items() if key != "file"}
        return machine.write_json(result.get("file", chosen.name), {
            "benchmark": chosen.name, "quick": chosen.quick, "machine": facts, **numbers}, chosen.output)

    options = {"picture": chosen.figure} if chosen.figure else {}
    options |= {"save": save} if chosen.name in SAVING else {}
    print(f"\nwritten: {save(importlib.import_module(f'bench.{chosen.name}').run(chosen.quick, **options))}")


if __name__ == "__main__":
    main()
