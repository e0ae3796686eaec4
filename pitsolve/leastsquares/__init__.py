"""Least squares in time: block-tridiagonal problems, overlapping windows, the choice of mu, load balance, smoothing."""

from pitsolve.leastsquares.problem import BlockTridiagonal as BlockTridiagonal
