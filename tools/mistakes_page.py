"""`docs/mistakes.md`: mistakes from public threads, with their findings."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MISTAKES = ROOT / "tests" / "data" / "mistakes.toml"


def mistakes_page() -> str:
    """The page's text."""
    rows = tomllib.loads(MISTAKES.read_text(encoding="utf-8"))["mistake"]
    threads = len({row["url"] for row in rows})
    lines = [
        "# Mistakes that people made",
        "",
        f"{len(rows)} mistakes in LoRA configurations from {threads} public threads, each with the findings of `lorascope check`.",
        "The tests check every row (`tests/data/mistakes.toml`, `tests/checks/test_mistakes.py`). The model is the nearest",
        "built-in one. What the codes mean: [checking](checking.md#findings).",
        "",
        "This page is generated: `python tools/build_docs.py`.",
        "",
        "| thread | mistake | model | findings |",
        "|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["id"]):
        model = row["model"] + (f", {row['trainer']}" if "trainer" in row else "")
        codes = ", ".join(f"`{code}`" for code in dict.fromkeys(row["findings"]))
        mistake = row["mistake"].replace("|", "\\|")
        lines.append(f"| [{row['id']}]({row['url']}) | {mistake} | {model} | {codes} |")
    return "\n".join(lines) + "\n"
