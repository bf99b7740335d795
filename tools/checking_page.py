"""`docs/checking.md`: the page as it is, with the table of findings that the rules declare."""

from __future__ import annotations

from pathlib import Path

from lorascope.checks.registry import rules

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "checking.md"
_BEGIN = "<!-- The rules declare this table: python tools/build_docs.py writes it. -->\n"
_END = "<!-- End of the table. -->\n"


def checking_page() -> str:
    """The page's text."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{_table()}\n{_END}{after}"


def _table() -> str:
    lines = ["| code | usually | what is wrong | why it matters |", "|---|---|---|---|"]
    lines += [f"| `{rule.code}` | {rule.severity} | {rule.meaning} | {rule.why} |" for rule in rules().values()]
    return "\n".join(lines) + "\n"
