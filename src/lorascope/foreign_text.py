"""Text that anyone may have written: what may enter as a name, and how any of it leaves.

Class names, model types, releases, names of modules, tensors and files come from a model's files. Each is checked where
it enters (`is_class_name`, `is_model_type`, `is_release`, `is_printable`) and escaped where it leaves: a terminal line
by `one_line`, a value in a message by `quoted`, one that is suggested by `literal`, a word of a printed command by
`shell_word`, a comment of a generated file by `comment`, JSON by `json_text`. Values in generated files leave through the language's own writer: `repr`, `yaml.safe_dump`, `shlex.quote`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from typing import Any

_CLASS_NAME = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_MODEL_TYPE = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)
_RELEASE = re.compile(r"[\w.+-]{1,64}", re.ASCII)

# Python writes no decimal digits of longer ones unless it is told to (`sys.set_int_max_str_digits`).
_LONGEST_INT_BITS = 4000


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > _LONGEST_INT_BITS:
            return f"<a whole number of {x.bit_length():,} bits>"
        return super().repr_int(x, level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 120


def is_class_name(text: object) -> bool:
    """An ASCII identifier of at most 200 characters, as names of model classes are."""
    return isinstance(text, str) and _CLASS_NAME.fullmatch(text) is not None


def is_model_type(text: object) -> bool:
    """At most 100 ASCII letters, digits and `_.+-`, such as `xlm-roberta`."""
    return isinstance(text, str) and _MODEL_TYPE.fullmatch(text) is not None


def is_release(text: object) -> bool:
    """At most 64 ASCII letters, digits and `_.+-`, such as `5.23.0` or a commit."""
    return isinstance(text, str) and _RELEASE.fullmatch(text) is not None


def is_printable(text: object) -> bool:
    """A text that is not empty and holds no control, line break, or mark that turns the direction of writing."""
    return isinstance(text, str) and bool(text) and text.isprintable()


def one_line(text: str) -> str:
    r"""The text as one line that drives no terminal.

    Everything that Python calls not printable is shown as Python would write it: line breaks (`\n`, `\u2028`), controls
    (`\x1b`), marks that reverse the direction (`\u202e`), halves of surrogate pairs. A text without any comes back as
    it is.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def shown(text: str) -> str:
    """The text with its line breaks and tabs kept, and everything else as `one_line` shows it."""
    return text if text.isprintable() else "".join(c if c in "\n\t" else _visible(c) for c in text)


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def quoted(value: object) -> str:
    """A foreign value in one short line: its `repr`, cut where it is long."""
    return one_line(_SHORT.repr(value))


def literal(text: str, most: int = 2_000) -> str:
    r"""A text in double quotes, as Python, JSON and YAML read it.

    For what is suggested, so that it can be pasted. What is longer than `most` is cut, and the sign of that stands behind the quotes: pasted, it is no text at all.

    >>> literal('a"b')
    '"a\\"b"'
    """
    plain = (c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text[:most])
    return f'"{"".join(plain)}"{"…" if len(text) > most else ""}'


def shell_word(text: str) -> str:
    """A text as one word of a command that can be pasted into a shell, and no option there."""
    import shlex  # with what it loads, which most commands never need

    line = one_line(text)
    return shlex.quote(f"./{line}" if line.startswith("-") else line)


def comment(text: str) -> str:
    """A line that Python, YAML and a shell pass over: `# ` and the text as one line.

    `coding` before a colon or an equals sign would tell Python how to read the file; the sign is escaped.
    """
    return "# " + re.sub(r"coding([:=])", lambda found: f"coding\\x{ord(found[1]):02x}", one_line(text))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON that every reader takes: ASCII alone, and null for numbers that JSON does not have."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
