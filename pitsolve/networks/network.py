"""A network whose blocks are split among subnetworks side by side, and the coarse sweep that connects them."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from pitsolve.backends.cpu.threads import together
from pitsolve.cells.base import Parameters
from pitsolve.networks.layer import Composite, Layer, Recomputed, Sequence
from pitsolve.networks.timings import Clock


class _Propagated(NamedTuple):
    """x_j = C^j(x) and y_j = g^j(x_j), with what the two layers keep."""

    start: np.ndarray
    end: np.ndarray
    kept: tuple[Any, Any]


class Network(Composite):
    """h(y~) with y~ = y_N + F^{N-1}(R_{N-1}): see :func:`pitsolve.networks.parareal`. With one subnetwork, h(g(C(x)))."""

    starts: tuple[Layer, ...]  # C^1 ... C^N
    blocks: tuple[Layer, ...]  # all of g
    bounds: tuple[int, ...]  # subnetwork j has the blocks bounds[j] to bounds[j + 1]; N + 1 numbers
    corrections: tuple[Layer, ...]  # F^1 ... F^{N-1}
    post: Layer

    @property
    def subnetworks(self) -> int:
        """N."""
        return len(self.starts)

    @property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        return self._parts(0)

    def _parts(self, recompute: int) -> tuple[tuple[str, Layer], ...]:
        pre = [("pre" if j == 0 else f"pre{j + 1}", layer) for j, layer in enumerate(self.starts)]
        fine = [("", self._subnetwork(j, recompute)) for j in range(self.subnetworks)]
        coarse = [(f"coarse{j + 1}", layer) for j, layer in enumerate(self.corrections)]
        return (*pre, *fine, *coarse, ("post", self.post))

    def _subnetwork(self, j: int, recompute: int) -> Sequence:
        """g^j; ``recompute`` is the number of blocks that keep their common input alone, 0 if all keep everything."""
        named = [(str(k), self.blocks[k]) for k in range(self.bounds[j], self.bounds[j + 1])]
        if recompute:
            named = [("", Recomputed(Sequence(tuple(named[k:k + recompute])))) for k in range(0, len(named), recompute)]
        return Sequence(tuple(named))

    @cached_property
    def _known_roles(self) -> dict[int, tuple]:
        return {}

    def _roles(self, recompute: int) -> tuple[tuple, tuple, tuple, Any]:
        """C^j, g^j, F^j and h, with the names of their parameters."""
        if recompute not in self._known_roles:
            count, bound = self.subnetworks, self._bind(self._parts(recompute))
            self._known_roles[recompute] = bound[:count], bound[count:2 * count], bound[2 * count:-1], bound[-1]
        return self._known_roles[recompute]

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple]:
        return self.run(p, x, training, 0, None, Clock())

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return self.pull(p, saved, dy, 0, None, Clock())

    def run(self, p: Parameters, x: np.ndarray, training: bool, recompute: int, workers: int | None, clock: Clock):
        """:meth:`forward` with up to ``workers`` subnetworks at once."""
        starts, fine, coarse, post = self._roles(recompute)

        def propagate(j: int) -> _Propagated:
            with clock(("preprocessing", j)):
                start, kept_start = starts[j].forward(p, x, training)
            with clock(("subnetwork", j)):
                end, kept_end = fine[j].forward(p, start, training)
            return _Propagated(start, end, (kept_start, kept_end))

        ran = together([partial(propagate, j) for j in range(self.subnetworks)], workers)
        kept_coarse, y = [], ran[0].end
        with clock("coarse"):
            for j, correction in enumerate(coarse):  # y is y_{j+1} + F^j(R_j), so that R_{j+1} is y - x_{j+2}
                corrected, kept = correction.forward(p, y - ran[j + 1].start, training)
                y = ran[j + 1].end + corrected
                kept_coarse.append(kept)
        with clock("postprocessing"):
            y, kept_post = post.forward(p, y, training)
        return y, ([each.kept for each in ran], kept_coarse, kept_post)

    def pull(self, p: Parameters, saved: tuple, dy: np.ndarray, recompute: int, workers: int | None, clock: Clock):
        """:meth:`backward` of what :meth:`run` kept; ``recompute`` is what that was given."""
        starts, fine, coarse, post = self._roles(recompute)
        kept_fine, kept_coarse, kept_post = saved
        with clock("postprocessing"):
            dy, grads = post.backward(p, kept_post, dy)
        dends, djumps = [dy], []
        with clock("coarse"):
            for correction, kept in zip(reversed(coarse), reversed(kept_coarse), strict=True):
                dy, own = correction.backward(p, kept, dy)
                grads |= own
                dends.insert(0, dy)
                djumps.insert(0, dy)

        def propagate(j: int) -> tuple[np.ndarray, Parameters]:
            with clock(("subnetwork", j)):
                dstart, own = fine[j].backward(p, kept_fine[j][1], dends[j])
            with clock(("preprocessing", j)):
                dx, first = starts[j].backward(p, kept_fine[j][0], dstart if j == 0 else dstart - djumps[j - 1])
            return dx, own | first

        dx = None
        for part, own in together([partial(propagate, j) for j in range(self.subnetworks)], workers):
            dx = part if dx is None else dx + part
            grads |= own
        return dx, grads

    def infer(self, p: Parameters, x: np.ndarray, workers: int | None = None) -> np.ndarray:
        starts, fine, coarse, post = self._roles(0)

        def propagate(j: int) -> tuple[np.ndarray, np.ndarray]:
            start = starts[j].infer(p, x)
            return start, fine[j].infer(p, start)

        ran = together([partial(propagate, j) for j in range(self.subnetworks)], workers)
        y = ran[0][1]
        for correction, (start, end) in zip(coarse, ran[1:], strict=True):
            y = end + correction.infer(p, y - start)
        return post.infer(p, y)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        ends = []
        for j, start in enumerate(self.starts):
            begin = start.output_shape(shape)
            if ends and begin != ends[-1]:
                raise ValueError(f"C^{j + 1} must give the shape {ends[-1]} that subnetwork {j} ends with, but gives {begin}")
            ends.append(self._subnetwork(j, 0).output_shape(begin))
        for j, correction in enumerate(self.corrections):
            if correction.output_shape(ends[j]) != ends[j + 1]:
                raise ValueError(f"F^{j + 1} must give the shape {ends[j + 1]} that subnetwork {j + 2} ends with, but gives "
                                 f"{correction.output_shape(ends[j])}")
        return self.post.output_shape(ends[-1])
