"""What is measured of rollouts: torchmetrics that sum over batches and processes, and know how tables show them.

Import them from their modules: `metrics.base` and `metrics.ratio` for the plug point, `metrics.callback` for what runs
them, `metrics.composition`, which loads spaCy when it counts. `metrics.columns` and `metrics.conditions` need no torch.
"""
