"""Least squares in time: block-tridiagonal problems, overlapping windows, the choice of mu, load balance, smoothing."""

from pitsolve.leastsquares.problem import BlockTridiagonal as BlockTridiagonal
from pitsolve.leastsquares.result import SchwarzError as SchwarzError
from pitsolve.leastsquares.result import SchwarzSolution as SchwarzSolution
from pitsolve.leastsquares.result import SchwarzStatus as SchwarzStatus
