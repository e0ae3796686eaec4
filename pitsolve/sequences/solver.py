"""How the recurrent layers of a model are solved and differentiated."""

from __future__ import annotations

from dataclasses import dataclass, field

from pitsolve import check, solve
from pitsolve.gradient import METHODS as GRADIENTS


@dataclass(frozen=True)
class Solver:
    """Methods for the states and for the adjoint states of every recurrent layer.

    Parameters
    ----------
    method : str
        As in :func:`pitsolve.solve`. ``"auto"`` tries before every call whether windows of time pay, and takes the loop where
        they do not: so it follows a network whose memory grows as it learns.
    options : dict, optional
        Of that method: ``{"tol": 1e-5, "window": 256}``, for example.
    gradient : str
        As in :func:`pitsolve.gradient`.
    gradient_options : dict, optional
        Of that.
    backend : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``, where the recurrent layers run; everything else runs on the CPU.
    truncated : bool
        Whether iterations are meant to stop before they converge, so that states and gradients have an error by intent. It is
        then measured and not warned of; see :func:`pitsolve.training.fit`.

    Raises
    ------
    TypeError, ValueError
        A method that does not exist; options that are no dicts. The options themselves are checked by the first call.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.training.Solver("shooting", {"window": 128}).method
    'shooting'
    """

    method: str = "auto"
    options: dict = field(default_factory=dict)
    gradient: str = "auto"
    gradient_options: dict = field(default_factory=dict)
    backend: str = "auto"
    truncated: bool = False

    def __post_init__(self) -> None:
        check.choice("method", self.method, solve.METHODS)
        check.choice("gradient", self.gradient, GRADIENTS)
        for name in ("options", "gradient_options"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be a dict, got {type(getattr(self, name)).__name__}")
        for name in {"guess", "lengths", "method", "backend"} & set(self.options):
            raise ValueError(f"options must be those of the method; {name!r} is set by the layer or by a field of Solver")
        check.flag("truncated", self.truncated)

    @classmethod
    def of(cls, method: str | Solver) -> Solver:
        """A solver itself, or the one of a method by name."""
        return method if isinstance(method, cls) else cls(method)


EXACT = Solver("sequential", gradient="sequential")


def truncated_multigrid(forward: int = 2, backward: int = 1, *, levels: int | None = 3, coarsening: int = 4,
                        **options: object) -> Solver:
    """Multigrid in time that stops after a few cycles, for states and adjoint states.

    Parameters
    ----------
    forward, backward : int
        Cycles for the states and for the adjoint states; 2 and 1 in the paper.
    levels, coarsening
        The grids, as in :func:`pitsolve.solve`; 3 levels, each 4 times as coarse, in the paper.
    **options
        More options of ``mgrit`` for both directions.

    Returns
    -------
    Solver

    References
    ----------
    Moon and Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences", ICLR 2022, section 4.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.training.truncated_multigrid().gradient_options["cycles"]
    1
    """
    grids = {"levels": levels, "coarsening": coarsening, **options}
    ahead = {"tol": 1e-30, "max_iter": check.count("forward", forward), "on_failure": "warn"}  # a tolerance out of reach
    return Solver("mgrit", {**grids, **ahead}, "mgrit", {**grids, "cycles": check.count("backward", backward)}, truncated=True)
