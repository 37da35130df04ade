"""Experiments around the package: the laptop reproduction and the benchmarks. Not part of the wheel."""
