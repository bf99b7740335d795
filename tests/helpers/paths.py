"""Where the repository, its tests' data and its helpers' programs are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
DATA = ROOT / "tests" / "data"
