"""Model maps from transformers' own classes, built without weights."""
