"""Direct competitors of windows in least squares: SciPy's banded and sparse solvers, and smoothers in covariance form.

``Smoother`` is the Kalman filter with the backward pass of Rauch, Tung and Striebel, for means; with several blocks it is the
exact parallel-in-time smoother of Sarkka and Garcia-Fernandez ("Temporal parallelization of Bayesian smoothers", IEEE Trans.
Automat. Control 2021): blocks of time are reduced to one element each, the elements are combined from block to block, and every
block then runs the ordinary filter from the state it starts in. It works on one thread, block by block: what more processors
would make of it follows from the times of its phases. Up to 8 states its products are loops, above them BLAS.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

SMALL = 8  # states up to which loops are faster than a call of BLAS


class Case:
    """A stable state-space model of n states observed by n/2 numbers now and then, and the normal equations of its smoother."""

    def __init__(self, n: int, steps: int, radius: float = 0.9, every: int = 2, process: float = 0.1):
        random = np.random.default_rng(20931)
        self.n, self.steps = n, steps
        F = random.normal(size=(n, n))
        self.F = F * (radius / np.abs(np.linalg.eigvals(F)).max())
        self.C = random.normal(size=(max(1, n // 2), n))
        self.Q, self.R = process * np.eye(n), 0.2 * np.eye(len(self.C))
        self.seen = np.arange(steps) % every == 0
        self.y = random.normal(size=(steps, len(self.C)))

    @functools.cached_property
    def blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N_tt, N_{t,t+1} and f_t, without the rows of A, which would be the largest of all."""
        Q, R = np.linalg.inv(self.Q), np.linalg.inv(self.R)
        diagonal = np.tile(Q + self.F.T @ Q @ self.F, (self.steps, 1, 1))
        diagonal[-1] = Q
        diagonal[self.seen] += self.C.T @ R @ self.C
        rhs = np.where(self.seen[:, None], self.y @ R @ self.C, 0)
        return diagonal, np.tile(-self.F.T @ Q, (self.steps - 1, 1, 1)), rhs


def banded(blocks: tuple[np.ndarray, ...]) -> np.ndarray:
    """The lower bands of N (2 n, T n), in the order of memory of LAPACK."""
    diagonal, off, rhs = blocks
    steps, n = rhs.shape
    bands = np.zeros((2 * n, steps * n), order="F")
    for i in range(n):
        for j in range(n):
            if j <= i:
                bands[i - j, j::n] = diagonal[:, i, j]
            bands[n + j - i, i::n][:steps - 1] += off[:, i, j]
    return bands


def by_bands(blocks: tuple[np.ndarray, ...]) -> Callable[[], np.ndarray]:
    """scipy.linalg.solveh_banded, LAPACK's banded Cholesky; the bands are made before."""
    bands, rhs = banded(blocks), blocks[2]
    return lambda: scipy.linalg.solveh_banded(bands, rhs.ravel(), lower=True, check_finite=False).reshape(rhs.shape)


def by_sparse_factors(blocks: tuple[np.ndarray, ...]) -> Callable[[], np.ndarray]:
    """scipy.sparse.linalg.splu in the natural order, as for symmetric matrices."""
    diagonal, off, rhs = blocks
    steps, n = rhs.shape
    upper = scipy.sparse.bsr_array((off, np.arange(1, steps), np.append(np.arange(steps), steps - 1)), (steps * n, steps * n))
    matrix = scipy.sparse.bsr_array((diagonal, np.arange(steps), np.arange(steps + 1)), (steps * n, steps * n))
    matrix = (matrix + upper + upper.T).tocsc()
    options = {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    return lambda: scipy.sparse.linalg.splu(matrix, **options).solve(rhs.ravel()).reshape(rhs.shape)


def scipy_bytes(n: int, steps: int) -> dict[str, int]:
    """What each of them needs, copies included."""
    return {"solveh_banded": 2 * 2 * n * n * steps * 8, "splu": 3 * n * n * steps * (3 * 12 + 16)}


# ------------------------------------------------------------------------------------------------- smoothers


@functools.cache
def _algebra(small: bool) -> tuple[Callable, Callable]:
    """product(A, B, out), and solve(A, B), which overwrites A and turns B into A^-1 B."""
    if not small:
        @numba.njit
        def product(A, B, out):
            np.dot(A, B, out)

        @numba.njit
        def solve(A, B):
            B[...] = np.linalg.solve(A, B)

        return product, solve

    @numba.njit(fastmath=True)
    def product(A, B, out):
        for i in range(A.shape[0]):
            for j in range(B.shape[1]):
                out[i, j] = A[i, 0] * B[0, j]
            for k in range(1, A.shape[1]):
                for j in range(B.shape[1]):
                    out[i, j] += A[i, k] * B[k, j]

    @numba.njit
    def solve(A, B):
        n, columns = A.shape[0], B.shape[1]
        for k in range(n):
            pivot = k
            for i in range(k + 1, n):
                if abs(A[i, k]) > abs(A[pivot, k]):
                    pivot = i
            if pivot != k:
                for j in range(n):
                    A[k, j], A[pivot, j] = A[pivot, j], A[k, j]
                for j in range(columns):
                    B[k, j], B[pivot, j] = B[pivot, j], B[k, j]
            for i in range(k + 1, n):
                factor = A[i, k] / A[k, k]
                for j in range(k, n):
                    A[i, j] -= factor * A[k, j]
                for j in range(columns):
                    B[i, j] -= factor * B[k, j]
        for k in range(n - 1, -1, -1):
            for i in range(k + 1, n):
                for j in range(columns):
                    B[k, j] -= A[k, i] * B[i, j]
            for j in range(columns):
                B[k, j] /= A[k, k]

    return product, solve


@functools.cache
def _kernels(small: bool) -> dict[str, Callable]:
    """The passes over blocks [bounds[i], bounds[i + 1]) of time."""
    product, solve = _algebra(small)

    @numba.njit
    def times(A, B):
        out = np.empty((A.shape[0], B.shape[1]))
        product(A, B, out)
        return out

    @numba.njit
    def divided(A, B):
        """A^-1 B, both kept."""
        X = B.copy()
        solve(A.copy(), X)
        return X

    @numba.njit
    def append(A, b, P, eta, J, seen, element, y):
        """The element of a block followed by one step; only a step that is observed has eta and J."""
        A_j, P_j, gain, back, J_j = element
        if not seen:
            return times(A_j, A), times(A_j, b), times(times(A_j, P), A_j.T.copy()) + P_j, eta, J
        n = A.shape[0]
        eta_j = times(back, y)
        M = np.eye(n) + times(P, J_j)
        X = divided(M.T, A_j.T).T.copy()
        Y = divided(M, A).T.copy()
        return (times(X, A), times(X, b + times(P, eta_j)) + times(gain, y), times(times(X, P), A_j.T.copy()) + P_j,
                times(Y, eta_j - times(J_j, b)) + eta, times(times(Y, J_j), A) + J)

    @numba.njit
    def reduce(bounds, seen, y, plain, observed, A, b, P, eta, J):
        """Every block but the first and the last as one element."""
        for block in range(1, bounds.size - 2):
            n = A.shape[1]
            A_i, b_i, P_i, eta_i, J_i = np.eye(n), np.zeros((n, 1)), np.zeros((n, n)), np.zeros((n, 1)), np.zeros((n, n))
            for t in range(bounds[block], bounds[block + 1]):
                element = observed if seen[t] else plain
                A_i, b_i, P_i, eta_i, J_i = append(A_i, b_i, P_i, eta_i, J_i, seen[t], element, y[t].copy().reshape(-1, 1))
            A[block], b[block], P[block], eta[block], J[block] = A_i, b_i, P_i, eta_i, J_i

    @numba.njit
    def join(A, b, P, eta, J, m_start, P_start):
        """State before each block from that before the block before it; the first two are given."""
        n = A.shape[1]
        for block in range(1, A.shape[0] - 1):
            M = np.eye(n) + times(P_start[block], J[block])
            X = divided(M.T, A[block].T).T.copy()
            m_start[block + 1] = times(X, m_start[block] + times(P_start[block], eta[block])) + b[block]
            P_start[block + 1] = times(times(X, P_start[block]), A[block].T.copy()) + P[block]

    @numba.njit
    def filter_blocks(chosen, bounds, seen, y, F, Q, C, R, m_start, P_start, m_end, P_end, G, g):
        """The filter through the chosen blocks; the backward pass is m_t <- G_t m_{t+1} + g_t. Allocates nothing a step."""
        n, k = F.shape[0], C.shape[0]
        F_T, C_T = F.T.copy(), C.T.copy()
        m, predicted, moved = np.empty((n, 1)), np.empty((n, 1)), np.empty((n, 1))
        P, ahead, FP, W, CP, gain, S, e = (np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n)),
                                           np.empty((k, n)), np.empty((k, n)), np.empty((k, k)), np.empty((k, 1)))
        for block in chosen:
            m[:], P[:] = m_start[block], P_start[block]
            for t in range(bounds[block], bounds[block + 1]):
                if t > 0:
                    product(F, P, FP)
                    product(FP, F_T, ahead)
                    product(F, m, predicted)
                    for i in range(n):
                        for j in range(n):
                            ahead[i, j] += Q[i, j]
                            W[i, j] = ahead[i, j]
                    solve(W, FP)
                    for i in range(n):
                        for j in range(n):
                            G[t - 1, i, j] = FP[j, i]
                    product(G[t - 1], predicted, moved)
                    for i in range(n):
                        g[t - 1, i] = m[i, 0] - moved[i, 0]
                    m, predicted, P, ahead = predicted, m, ahead, P
                if seen[t]:
                    product(C, P, CP)
                    product(CP, C_T, S)
                    product(C, m, e)
                    for i in range(k):
                        e[i, 0] = y[t, i] - e[i, 0]
                        for j in range(k):
                            S[i, j] += R[i, j]
                        for j in range(n):
                            gain[i, j] = CP[i, j]
                    solve(S, gain)
                    for a in range(k):
                        for i in range(n):
                            m[i, 0] += gain[a, i] * e[a, 0]
                            for j in range(n):
                                P[i, j] -= gain[a, i] * CP[a, j]
            m_end[block], P_end[block] = m, P

    @numba.njit
    def compose(bounds, G, g, E, e):
        """The backward maps of every block but the first as one map each."""
        for block in range(1, bounds.size - 1):
            n = G.shape[1]
            total, shift = np.eye(n), np.zeros((n, 1))
            for t in range(min(bounds[block + 1], G.shape[0] - 1) - 1, bounds[block] - 1, -1):
                shift = times(G[t], shift) + g[t].copy().reshape(-1, 1)
                total = times(G[t], total)
            E[block], e[block] = total, shift

    @numba.njit
    def back(bounds, G, g, last, out):
        """m_t <- G_t m_{t+1} + g_t in every block, from the state after it."""
        n = G.shape[1]
        for block in range(bounds.size - 1):
            after = last[block, :, 0]
            for t in range(bounds[block + 1] - 1, bounds[block] - 1, -1):
                if t == out.shape[0] - 1:
                    out[t] = after
                else:
                    for i in range(n):
                        total = g[t, i]
                        for j in range(n):
                            total += G[t, i, j] * after[j]
                        out[t, i] = total
                after = out[t]

    return {"reduce": reduce, "join": join, "filter": filter_blocks, "compose": compose, "back": back}


class Smoother:
    """The exact smoother on so many blocks of time; one block is the sequential one. ``call()`` returns the means (T, n)."""

    def __init__(self, case: Case, blocks: int):
        n, F, Q, C = case.n, case.F, case.Q, case.C
        self.case, self.blocks, self.kernels = case, blocks, _kernels(n <= SMALL)
        self.bounds = np.arange(blocks + 1) * case.steps // blocks
        S = C @ Q @ C.T + case.R
        gain, SC = np.linalg.solve(S, C @ Q).T, np.linalg.solve(S, C @ F)
        nothing = np.zeros((n, len(C)))
        self.plain = tuple(map(np.ascontiguousarray, (F, Q, nothing, nothing, np.zeros((n, n)))))
        self.observed = tuple(map(np.ascontiguousarray, (F - gain @ C @ F, Q - gain @ C @ Q, gain, SC.T, F.T @ C.T @ SC)))
        self.A, self.P, self.J, self.P_start, self.P_end, self.E = np.zeros((6, blocks, n, n))
        self.b, self.eta, self.m_start, self.m_end, self.e, self.last = np.zeros((6, blocks, n, 1))
        self.P_start[0] = Q
        self.G, self.g, self.means = np.empty((case.steps, n, n)), np.empty((case.steps, n)), np.empty((case.steps, n))

    def _filter(self, chosen: np.ndarray) -> None:
        case = self.case
        self.kernels["filter"](chosen, self.bounds, case.seen, case.y, case.F, case.Q, case.C, case.R, self.m_start,
                               self.P_start, self.m_end, self.P_end, self.G, self.g)

    def forward(self) -> None:
        """The filter through the first block; the others, but the last, are reduced to elements."""
        self._filter(np.array([0]))
        self.kernels["reduce"](self.bounds, self.case.seen, self.case.y, self.plain, self.observed, self.A, self.b, self.P,
                               self.eta, self.J)

    def join(self) -> None:
        """States before all blocks, one after the other."""
        if self.blocks > 1:
            self.m_start[1], self.P_start[1] = self.m_end[0], self.P_end[0]
            self.kernels["join"](self.A, self.b, self.P, self.eta, self.J, self.m_start, self.P_start)

    def middle(self) -> None:
        """The filter through the other blocks, and their backward maps."""
        self._filter(np.arange(1, self.blocks))
        self.kernels["compose"](self.bounds, self.G, self.g, self.E, self.e)

    def join_back(self) -> None:
        """States after all blocks, one after the other."""
        self.last[-1] = self.m_end[-1]
        for block in range(self.blocks - 1, 0, -1):
            self.last[block - 1] = self.E[block] @ self.last[block] + self.e[block]

    def backward(self) -> None:
        """The backward pass in all blocks."""
        self.kernels["back"](self.bounds, self.G, self.g, self.last, self.means)

    def call(self) -> np.ndarray:
        for phase in (self.forward, self.join, self.middle, self.join_back, self.backward):
            phase()
        return self.means
