"""The Python of a notebook's code cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.sources.files.json_text import parse_json

# With the pictures that its cells have printed.
MOST_BYTES = 2**25
_HINT = "Give a notebook, or its code as a .py file."
# Cells in another language, by their first line; `%%time` and its relatives run the cell as Python.
_OTHER_LANGUAGE = re.compile(
    r"\s*%%(bash|sh|script|writefile|file|html|HTML|javascript|js|latex|markdown|perl|ruby|cmd|R|sql|capture_sh)\b"
)
# Lines for the notebook: `!pip …`, `%env …`, `files = !ls`, `LoraConfig?`.
_MAGIC = re.compile(r"(\s*)((?:[\w, ]+=\s*)?[%!]|[^#]*\?\s*$)")


def notebook_code(data: bytes, where: str) -> str:
    """The code cells one after the other; lines for the notebook itself are left out.

    Args:
        data: The file.
        where: What messages call it.

    Raises:
        LorascopeError: It is no notebook.
    """
    parsed = parse_json(data, where, _HINT)
    cells = parsed.get("cells") if isinstance(parsed, dict) else None
    if not isinstance(cells, list):
        raise LorascopeError("has no cells", where=where, hint=_HINT)
    return "\n".join(line for cell in cells for line in _lines(cell)) + "\n"


def _lines(cell: Any) -> Iterator[str]:
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return
    source = cell.get("source")
    text = "".join(map(str, source)) if isinstance(source, list) else source
    if not isinstance(text, str) or _OTHER_LANGUAGE.match(text):
        return
    continued = False
    for line in text.splitlines():
        magic = _MAGIC.match(line) if not continued else None
        if magic or continued:
            continued = line.rstrip().endswith("\\")
            yield f"{magic[1] if magic else ''}pass" if magic else ""
        else:
            yield line
