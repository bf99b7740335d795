"""A picture of what a command prints, for the README: an SVG made from the real output."""

from __future__ import annotations

import contextlib
import html
import io
import os
import shlex
from unittest import mock

from lorascope.cli.main import main

# The commands that the README shows, by the name of the picture.
SHOWN = {
    "check-deepseek_v3": "lorascope check deepseek_v3 q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
}
_COLUMNS = 122
_LINE, _CHARACTER, _MARGIN = 17, 7.83, 16
_COLORS = {"✗": "#ff7b72", "✓": "#7ee787", "! ": "#f2cc60", "→": "#79c0ff", "$": "#7ee787", "·": "#8b949e"}
_STYLE = "font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre"


def picture(name: str) -> str:
    """The SVG of a command's output.

    Raises:
        ValueError: The command cannot be read (exit code 2).
    """
    command = SHOWN[name]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), mock.patch.dict(os.environ, COLUMNS="120"):
        if main(shlex.split(command)[1:]) == 2:
            raise ValueError(f"{command} is refused")
    return svg([f"$ {command}", *printed.getvalue().splitlines()])


def svg(lines: list[str]) -> str:
    """Lines of text as an SVG on a dark ground; a line that begins with a sign is colored by it."""
    width, height = round(2 * _MARGIN + _COLUMNS * _CHARACTER), 2 * _MARGIN + _LINE * len(lines)
    rows = []
    for number, line in enumerate(lines, 1):
        text = line if len(line) <= _COLUMNS else line[: _COLUMNS - 1] + "…"
        color = next((color for sign, color in _COLORS.items() if line.lstrip().startswith(sign)), "#e6edf3")
        rows.append(f'<text x="{_MARGIN}" y="{_MARGIN + _LINE * number - 5}" fill="{color}">{html.escape(text)}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" style="{_STYLE}" role="img">',
            f"<title>{html.escape(lines[0])}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
            *rows,
            "</svg>\n",
        ]
    )
