"""A contest of attributions: which of them names the tokens of a reasoning that its answer needs, and at what cost?"""
