"""AtManRL: train language models whose chain of thought really drives the answer."""

__version__ = "0.1.0"
