"""How many weights of other people's models get which verdict, by names and by dataflow.

Their libraries have an environment of their own (`tests.helpers.venvs`). Used by the tests and by the tool that writes
`docs/held-out.md`.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT
from tests.helpers.venvs import environment, run_in

ITSELF = ROOT / "tests/others/measure.py"

Figures = dict[str, dict[str, dict[str, int]]]


def run_others(*names: str) -> dict[str, Any]:
    """Every model's row of `tests.others.measure`."""
    with tempfile.TemporaryDirectory() as folder:
        printed = run_in(environment("others"), ["-P", str(ITSELF), *names], Path(folder))
    rows: dict[str, Any] = json.loads(printed)
    return rows


def figures(rows: Mapping[str, Any]) -> Figures:
    """Names or dataflow to role to verdict to number of weights, of all models together."""
    found: dict[str, dict[str, Counter[str]]] = {"names": {}, "dataflow": {}}
    for row in rows.values():
        for kind, roles in found.items():
            for role, counts in row[kind].items():
                roles.setdefault(role, Counter()).update(counts)
    return {
        kind: {role: dict(sorted(counts.items())) for role, counts in sorted(roles.items())}
        for kind, roles in found.items()
    }
