"""Benchmarks: limits of the machine, then each method as a ratio to them and to its peers. ``python -m bench``."""
