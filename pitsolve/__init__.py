"""pitsolve: evaluate, differentiate and train sequential models in parallel over time."""

from pitsolve import cells as cells
from pitsolve import leastsquares as leastsquares
from pitsolve import networks as networks
from pitsolve import sequences as sequences
from pitsolve import training as training
from pitsolve.gradient import gradient as gradient
from pitsolve.leastsquares.fit import SchwarzFit as SchwarzFit
from pitsolve.leastsquares.schwarz import schwarz_lstsq as schwarz_lstsq
from pitsolve.leastsquares.training import fit_schwarz as fit_schwarz
from pitsolve.ode import gradient_ode as gradient_ode
from pitsolve.ode import solve_ode as solve_ode
from pitsolve.parareal import PararealSolution as PararealSolution
from pitsolve.parareal import parareal as parareal
from pitsolve.scan import affine_scan as affine_scan
from pitsolve.scan import compose as compose
from pitsolve.solution import ConvergenceError as ConvergenceError
from pitsolve.solution import Gradient as Gradient
from pitsolve.solution import Solution as Solution
from pitsolve.solution import Status as Status
from pitsolve.solve import solve as solve
from pitsolve.work import Work as Work
from pitsolve.work import speedup_model as speedup_model

__version__ = "0.1.0"
