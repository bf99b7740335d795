"""What to adapt for a task, and what is known about it."""
