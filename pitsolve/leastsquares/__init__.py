"""Least squares in time: block-tridiagonal problems, overlapping windows, the choice of mu, load balance, smoothing."""

from pitsolve.leastsquares.balance import balance as balance
from pitsolve.leastsquares.balance import calibrate as calibrate
from pitsolve.leastsquares.balance import efficiency as efficiency
from pitsolve.leastsquares.balance import flows as flows
from pitsolve.leastsquares.choice import choose_mu as choose_mu
from pitsolve.leastsquares.covariance import covariances as covariances
from pitsolve.leastsquares.problem import BlockTridiagonal as BlockTridiagonal
from pitsolve.leastsquares.result import SchwarzError as SchwarzError
from pitsolve.leastsquares.result import SchwarzSolution as SchwarzSolution
from pitsolve.leastsquares.result import SchwarzStatus as SchwarzStatus
from pitsolve.leastsquares.smoother import smooth as smooth
from pitsolve.leastsquares.smoothing import Smoothing as Smoothing
from pitsolve.leastsquares.smoothing import SmoothingStatus as SmoothingStatus
from pitsolve.leastsquares.tie import choose_tie as choose_tie
