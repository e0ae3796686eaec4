"""A two-layer implicit GRU on UCI-HAR by truncated multigrid: errors of states and gradient beside torchbraid's.

    python docs/examples/har_multigrid.py uci_har_third.npz

The file holds X_train (N, 128, 9). The setting is that of Moon and Cyr (2022): batches of 100 sequences, 100 hidden units, two
layers, 3 levels, coarsening 4, 2 forward cycles and 1 backward cycle. The loss is a random linear function of the last states
of both layers; errors are relative to the loop and to back-propagation through time, in the 2-norm, the worst of all batches.

Differences from torchbraid: here the layers are solved one after the other, each by multigrid, and layer 2 reads the truncated
states of layer 1 at every step, where torchbraid has one state for both layers, so that layer 2 on a coarse grid reads the
coarse state of layer 1. Layer 1 then has a loss that depends on its states at all steps, not only at the last one, which
matters to a start on the coarsest grid; the gradient of each layer is therefore also shown by itself. And torchbraid's
figures, measured once, are for random inputs, white noise / smooth curves, not for these recordings.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import pitsolve as ps

BATCH, HIDDEN = 100, 100
GRID = {"method": "mgrit", "levels": 3, "coarsening": 4}
BELOW_F = ("F", "FCF")  # torchbraid's backward relaxation: F on level 0, FCF below
SETTINGS = {
    "torchbraid's: first way down skipped": (
        {"skip_first": True}, {"skip_first": True, "relaxation": BELOW_F}, "0.042 / 0.025", "0.636 / 0.519"),
    "torchbraid's, not skipped": (
        {"nested": False}, {"nested": False, "relaxation": BELOW_F}, "0.0037 / 0.0030", "0.088 / 0.080"),
    "FCF on every level, zero guess": ({"nested": False}, {"nested": False}, "-", "-"),
    "FCF on every level, nested iteration": ({}, {}, "-", "-"),
}
Parameters = dict[str, np.ndarray]


def forward(cells: list, params: list[Parameters], x: np.ndarray, **options) -> list[ps.Solution]:
    """Each layer in turn, the states of one being the inputs of the next."""
    solutions = []
    for cell, weights in zip(cells, params):
        solutions.append(ps.solve(cell, weights, x, **options))
        x = solutions[-1].states
    return solutions


def backward(cells: list, params: list[Parameters], x: np.ndarray, solutions: list[ps.Solution], cotangent: np.ndarray,
             **options) -> list[Parameters]:
    """Parameter gradients of each layer, from the last to the first, for dL/d(last state) of every layer (layers, B, n)."""
    inputs = [x] + [solution.states for solution in solutions[:-1]]
    gradients, from_above = [], np.zeros_like(solutions[-1].states)
    for layer in reversed(range(len(cells))):
        dstates = from_above.copy()
        dstates[:, -1] += cotangent[layer]
        found = ps.gradient(cells[layer], params[layer], inputs[layer], solutions[layer], dstates, **options)
        gradients.insert(0, found.params)
        from_above = found.x
    return gradients


def last_states(solutions: list[ps.Solution]) -> np.ndarray:
    return np.concatenate([solution.states[:, -1].ravel() for solution in solutions])


def flat(gradients: list[Parameters]) -> np.ndarray:
    return np.concatenate([layer[name].ravel() for layer in gradients for name in sorted(layer)])


def relative(value: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def main() -> None:
    """Read the recordings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="the .npz file")
    parser.add_argument("--batches", type=int, default=4, help="batches of 100 sequences (default 4)")
    parser.add_argument("--forward", type=int, default=2, help="forward cycles (default 2)")
    parser.add_argument("--backward", type=int, default=1, help="backward cycles (default 1)")
    chosen = parser.parse_args()
    with np.load(chosen.path) as file:
        x = file["X_train"][:chosen.batches * BATCH].astype(np.float64)
    x = ((x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))).astype(np.float32)
    cells = [ps.cells.ImplicitGRU(x.shape[2], HIDDEN), ps.cells.ImplicitGRU(HIDDEN, HIDDEN)]
    params = [cell.init(seed=11 + layer, dtype=np.float32) for layer, cell in enumerate(cells)]
    random = np.random.default_rng(13)
    batches = [(x[i:i + BATCH], random.standard_normal((2, BATCH, HIDDEN), np.float32)) for i in range(0, len(x), BATCH)]
    exact = []
    for inputs, cotangent in batches:
        loop = forward(cells, params, inputs, method="sequential")
        exact.append((last_states(loop), backward(cells, params, inputs, loop, cotangent, method="sequential")))

    warnings.simplefilter("ignore")  # two cycles are not to converge
    print(f"{len(batches)} batches of {BATCH} x {x.shape[1]}, {chosen.forward} forward and {chosen.backward} backward cycles\n")
    print("| relaxation and start | state error | gradient error | layer 1 | layer 2 | cosine | torchbraid: state error | "
          "gradient error |")
    print("|---" * 8 + "|")
    for name, (ahead, back, their_states, their_gradient) in SETTINGS.items():
        errors = []
        for (inputs, cotangent), (states, gradient) in zip(batches, exact):
            solutions = forward(cells, params, inputs, tol=1e-30, max_iter=chosen.forward, on_failure="warn", **GRID, **ahead)
            found = backward(cells, params, inputs, solutions, cotangent, cycles=chosen.backward, **GRID, **back)
            parts = [(flat(found), flat(gradient)), *((flat([a]), flat([b])) for a, b in zip(found, gradient))]
            errors.append([relative(last_states(solutions), states), *(relative(*pair) for pair in parts), -cosine(*parts[0])])
        *worst, angle = np.max(errors, axis=0)
        if (chosen.forward, chosen.backward) != (2, 1):
            their_states = their_gradient = "-"
        numbers = " | ".join(f"{value:.4f}" for value in (*worst, -angle))
        print(f"| {name} | {numbers} | {their_states} | {their_gradient} |", flush=True)


if __name__ == "__main__":
    main()
