"""Model maps from GGUF files."""
