"""The model map: modules, weights, and the role of each weight."""
