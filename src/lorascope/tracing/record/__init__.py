"""Records one forward pass as a graph, without weights."""
