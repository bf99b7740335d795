"""Rules: one file per kind of fault, each finding declared once."""
