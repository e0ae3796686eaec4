"""Models of one step: h_t = f(h_{t-1}, x_t; theta)."""

from pitsolve.cells.custom import custom as custom
from pitsolve.cells.custom import verify as verify
from pitsolve.cells.elman import Elman as Elman
from pitsolve.cells.gru import GRU as GRU
from pitsolve.cells.implicit_gru import ImplicitGRU as ImplicitGRU
from pitsolve.cells.lem import LEM as LEM
from pitsolve.cells.linear import Linear as Linear
from pitsolve.cells.lstm import LSTM as LSTM
from pitsolve.cells.ode import ODE as ODE
