"""Inputs that run every part of a model once."""
