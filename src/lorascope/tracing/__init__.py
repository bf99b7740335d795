"""Roles by dataflow: one forward pass without weights."""
