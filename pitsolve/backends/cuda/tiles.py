"""Sizes of the tiles of the backward kernels of gated cells: what a thread, a block and its shared memory hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve.cells.base import GatedCell

_SHARED = 16 << 10  # bytes of one array in shared memory, so that several blocks fit a multiprocessor
_REGISTERS = 96  # for the weights of a thread
_ALL_REGISTERS = 65536  # of a multiprocessor
_OTHERS = 64  # numbers of a thread beside its weights


def power_of_two(count: int) -> int:
    """The smallest one that is not below ``count``."""
    return 1 << max(0, count - 1).bit_length()


def round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def product_tile(dtype: np.dtype, outputs: int, depth: int, gates: int, bundled: int, threads: int) -> dict[str, int]:
    """The tile of a product over time with so many outputs a step and sums of ``depth`` terms.

    ``gates`` sums belong to an output, or ``bundled`` gates to a term.
    """
    units = min(32, power_of_two(outputs))
    steps = 8 if dtype.itemsize == 4 else 4
    bundle = {1: 16, 2: 8}.get(bundled, 4 * (2 if dtype.itemsize == 4 else 1))
    deep = bundled * min(bundle, round_up(depth, 4))
    while threads > max(32, units) and steps * (threads // units) * (deep + 4) * dtype.itemsize > _SHARED:
        threads //= 2
    groups = threads // units
    tile = steps * groups
    return {"THREADS": threads, "UNITS": units, "STEPS": steps, "GROUPS": groups, "TILE": tile, "DEPTH": deep,
            "PITCH": deep + 4, "HELD": 4 * gates, "VALUES": tile * (deep + 4), "WEIGHTS": deep * gates * units,
            "BUNDLE": deep // bundled}


@dataclass(frozen=True)
class OuterTile:
    """The tile of the outer products: see ``parameter_gradients.outer``."""

    cell: GatedCell
    constants: dict[str, int]
    threads: int
    steps: int  # of a tile
    numbers: int  # that a tile sums
    jobs: np.ndarray  # (jobs, 2): tiles of units and of columns

    def places(self) -> dict[str, np.ndarray]:
        """For every parameter, where its gradient stands among the sums of all jobs."""
        cell, c = self.cell, self.constants
        n, gates = cell.hidden_size, cell.GATES
        job = np.zeros(self.jobs.max(axis=0) + 1, np.int64)
        job[tuple(self.jobs.T)] = np.arange(len(self.jobs)) * self.numbers
        k, i = np.arange(gates)[:, None], np.arange(n)
        tile, unit = i // c["UNITS"], i % c["UNITS"]

        def at_columns(column: np.ndarray) -> np.ndarray:
            of_tile = column % c["COLUMNS_OF_TILE"]
            sum_ = (4 * k[:, :, None] + (unit % 4)[:, None]) * c["WIDE"] + of_tile % c["WIDE"]
            member = (unit // 4)[:, None] + c["UNITS"] // 4 * (of_tile // c["WIDE"])
            return job[tile[:, None], column // c["COLUMNS_OF_TILE"]] + sum_ * c["TEAM"] + member

        def at_row(row: np.ndarray) -> np.ndarray:
            return job[tile, 0] + c["SUMS"] * c["TEAM"] + row * c["UNITS"] + unit

        columns = n // cell.heads
        by_input = np.where(k < cell.SUMMED, k, k + gates - cell.SUMMED)
        inputs = np.broadcast_to(round_up(n, c["WIDE"]) + np.arange(cell.input_size), (n, cell.input_size))
        own = (i // columns * columns)[:, None] + np.arange(columns)
        return {"weight_ih": at_columns(inputs), "weight_hh": at_columns(own),
                "bias_ih": at_row(by_input), "bias_hh": at_row(k)}


def outer_tile(cell: GatedCell, dtype: np.dtype, threads: int) -> OuterTile:
    """The tile of the outer products, and which tiles are needed: with several heads not all columns of h are."""
    n, rows = cell.hidden_size, 2 * cell.GATES - cell.SUMMED
    most = _SHARED // dtype.itemsize
    units = min(32, max(4, power_of_two(n)))
    while units * rows > threads:
        units //= 2
    wide = 2 if dtype.itemsize == 8 and cell.GATES > 2 else 4
    by_state = round_up(n, wide)
    total = by_state + round_up(cell.input_size, wide)
    columns = min(total, 16 * wide, wide * (threads // (units // 4)))
    team = units // 4 * (columns // wide)
    listed = rows * units
    steps = max(1, min(256, most // listed, most // columns))
    sums = 4 * cell.GATES * wide
    slopes = max(steps * listed, threads)
    round_ = next(size for size in range(sums, 0, -1) if sums % size == 0 and size * threads <= slopes)
    constants = {"THREADS": threads, "UNITS": units, "LANES": min(units, power_of_two(n)), "WIDE": wide,
                 "COLUMNS_OF_TILE": columns, "TEAM": team, "SLICES": threads // team, "SUMS": sums, "LISTED": listed,
                 "LISTENERS": threads // listed, "TILE": steps, "SLOPES": slopes, "STAGED": steps * columns, "ROUND": round_}
    of_head = n // cell.heads
    jobs = []
    for tile in range(-(-n // units)):
        first, last = tile * units, min(n, (tile + 1) * units) - 1
        heads = range(first // of_head * of_head // columns, ((last // of_head + 1) * of_head - 1) // columns + 1)
        inputs = range(by_state // columns, -(-total // columns))
        jobs += [(tile, q) for q in sorted({0, *heads, *inputs})]
    return OuterTile(cell, constants, threads, steps, sums * team + listed, np.array(jobs))


@dataclass(frozen=True)
class BackTile:
    """How the threads of a block share windows: see ``back_substitution.pull``."""

    cell: GatedCell
    constants: dict[str, int]
    threads: int
    bounds: tuple[int, int]  # launch bounds: threads, and blocks that fit a multiprocessor

    @property
    def seats(self) -> int:
        """Windows that a block takes at a time."""
        return self.constants["SEATS"]

    def pack(self, weight_hh: np.ndarray) -> np.ndarray:
        """(GATES SHARE, n, SLICES): what each thread holds of W_hh^T, zeros beyond the units of a head."""
        cell, c = self.cell, self.constants
        columns, share, slices, run = c["COLUMNS"], c["SHARE"], c["SLICES"], c["RUN"]
        by_head = weight_hh.reshape(cell.GATES, cell.heads, columns, columns)  # gate, head, unit of v, unit of c
        padded = np.zeros((cell.GATES, cell.heads, share * slices, columns), weight_hh.dtype)
        padded[:, :, :columns] = by_head
        runs = padded.reshape(cell.GATES, cell.heads, share // run, slices, run, columns)
        return runs.transpose(0, 2, 4, 1, 5, 3)


def back_tile(cell: GatedCell, dtype: np.dtype) -> BackTile | None:
    """As many threads a unit as its weights need; None if they do not fit the registers."""
    n, words = cell.hidden_size, dtype.itemsize // 4
    columns = n // cell.heads
    run = 4 if columns > 2 else 1
    slices = 1
    while cell.GATES * round_up(columns, run * slices) // slices * words > _REGISTERS:
        slices *= 2
    share = round_up(columns, run * slices) // slices
    seats = max(1, 32 // (n * slices))
    threads = round_up(n * slices * seats, 32)
    width = share * slices * cell.heads
    constants = {"SIZE": n, "COLUMNS": columns, "SLICES": slices, "SEATS": seats, "WARP_ONLY": threads == 32, "SHARE": share,
                 "RUN": run, "PADDED": share * slices, "WIDTH": width, "OWN": cell.GATES * share,
                 "BOARD": 2 * seats * cell.GATES * width}
    blocks = _ALL_REGISTERS // (threads * (cell.GATES * share + _OTHERS) * words)
    return BackTile(cell, constants, threads, (threads, min(blocks, 32))) if blocks and threads <= 1024 else None


def streamed_tile(cell: GatedCell, threads: int) -> BackTile:
    """The same for weights in memory: see ``streamed_substitution.pull``."""
    n = cell.hidden_size
    units, seats = min(threads // 4, power_of_two(n)), 4
    constants = {"SIZE": n, "COLUMNS": n // cell.heads, "SEATS": seats, "THREADS": threads, "UNITS": units,
                 "TEAMS": threads // units, "SHARES": seats * threads}
    return BackTile(cell, constants, threads, (threads, 1))
