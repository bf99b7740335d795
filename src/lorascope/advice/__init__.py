"""Recommendations for a task, and the evidence they rest on."""
