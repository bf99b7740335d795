"""From the names and shapes in a checkpoint to those of the running model."""
