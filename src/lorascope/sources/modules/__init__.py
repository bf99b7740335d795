"""Torch modules, read without running their code."""
