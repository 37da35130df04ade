"""Metrics of an evaluation, as torchmetrics that sum over batches and processes.

Import them from their modules: `metrics.pass_at_k`, and `metrics.composition`, which loads spaCy when it counts.
"""
