"""Text of results, written by the reports.

The classes of results stand in lower rooms than the reports that print them. The package names the report of each class
here when it is imported; the report is loaded when something is printed.
"""

from __future__ import annotations

import importlib

# Name of a class to the dotted name of the function that makes its text.
REPORTS: dict[str, str] = {}


def text_of(value: object) -> str:
    """The text that `print` shows of a result."""
    module, _, function = REPORTS[type(value).__name__].rpartition(".")
    return str(getattr(importlib.import_module(module), function)(value))
