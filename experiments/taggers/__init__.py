"""Taggers: how well numbers and symbols are found in text, with and without a spaCy pipeline."""
