"""Roles by dataflow: what one forward pass without weights shows of every weight."""
