"""Checks: what a configuration really does on a model, and what is wrong with it."""
