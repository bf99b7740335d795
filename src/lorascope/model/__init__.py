"""The model map: modules, weights, and each weight's role."""
