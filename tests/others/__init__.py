"""Models of others, at small sizes, each with what its weights do: see `truths.tsv`."""
