"""How a weight gets its role."""
