"""Checks: what a configuration does on a model, and what is wrong."""
