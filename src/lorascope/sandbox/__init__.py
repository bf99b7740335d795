"""Bounds on foreign code: time, memory, network and terminal."""
