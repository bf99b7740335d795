"""Conversions: from a checkpoint's names and shapes to the running model's."""
