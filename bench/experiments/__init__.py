"""The experiments of the papers, run again on the data that there is: ``python -m bench.experiments.NAME``."""
