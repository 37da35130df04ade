"""Benchmarks: what the project claims about speed, memory and agreement, measured as ratios in one run."""
