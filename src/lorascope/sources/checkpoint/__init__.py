"""Checkpoints: from tensors to a model map."""
