"""Bytes from a folder or the Hub, and readers of each file format."""
