"""Files: bytes from a folder or the Hub, and their formats."""
