"""From a graph of weight uses to roles."""
