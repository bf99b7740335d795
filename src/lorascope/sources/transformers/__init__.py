"""Maps from transformers' own classes, without weights."""
