"""One file per kind of fault that a check finds."""
