"""Variables that a shell script sets, put where it uses them; nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lorascope.errors import LorascopeError

# A word of a command: its pieces, each with whether it was in single quotes or escaped, in double quotes, or bare.
Piece = tuple[str, str]
Word = list[Piece]

_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_ARRAY = re.compile(r"([A-Za-z_]\w*)(\+?)=\(")
_DECLARING = frozenset({"export", "local", "declare", "readonly", "typeset", "-x", "-a", "-r"})
_USED = re.compile(r"\$(?:\{([A-Za-z_]\w*)(\[[@*]\])?(?::?-([^{}]*))?\}|([A-Za-z_]\w*))")
_BLANK = " \t\n"
# Variables within variables, and the characters of all that one script expands to.
_DEEPEST = 10
_MOST = 2**20


class ShellVariables:
    """What a script has set so far."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._values: dict[str, list[str]] = {}
        self._left = _MOST

    def assigns(self, command: Sequence[Word]) -> bool:
        """Take in a command that only sets variables; whether it is one."""
        words = list(command)
        while words and "".join(text for text, _ in words[0]) in _DECLARING:
            words.pop(0)
        found = [(match, word) for word in words if word and word[0][1] == "plain" for match in _matches(word)]
        if not found or len(found) != len(words):
            return False
        for match, word in found:
            rest = [(word[0][0][match.end() :], "plain"), *word[1:]]
            value = "".join(self._text(text, kind) for text, kind in rest)
            before = "".join(self._values.get(match[1], [])[:1]) if match[2] else ""
            self._values[match[1]] = [before + value]
        return True

    def set_list(self, name: str, words: Sequence[Word], *, more: bool) -> None:
        """Set an array, or add to it."""
        own = [text for word in words for text in self.expanded(word)]
        self._values[name] = [*self._values.get(name, []), *own] if more else own

    def expanded(self, word: Word) -> Iterator[str]:
        """The words that one becomes."""
        if not any("$" in text for text, kind in word if kind != "single"):
            yield "".join(text for text, _ in word)
            return
        if len(word) == 1 and (match := _USED.fullmatch(word[0][0])) and match[2] and match[1] in self._values:
            yield from self._spent(self._values[match[1]])
            return
        words = [""]
        quoted = any(kind != "plain" for _, kind in word)
        for text, kind in word:
            if kind != "plain":
                words[-1] += self._text(text, kind)
                continue
            for at, part in enumerate(_split(self._text(text, kind), text)):
                if at:
                    words.append("")
                words[-1] += part
        yield from (one for one in words if one or quoted)

    def _text(self, text: str, kind: str, depth: int = 0) -> str:
        if kind == "single" or "$" not in text or depth > _DEEPEST:
            return text

        def value(match: re.Match[str]) -> str:
            known = self._values.get(match[1] or match[4])
            if known is not None and (any(known) or match[3] is None):
                return " ".join(known)
            return match[0] if match[3] is None else self._text(match[3], kind, depth + 1)

        return next(self._spent([_USED.sub(value, text)]))

    def _spent(self, texts: Sequence[str]) -> Iterator[str]:
        for text in texts:
            self._left -= len(text)
            if self._left < 0:
                raise LorascopeError(
                    f"its variables make more than {_MOST} characters",
                    where=self._where,
                    hint="Give the command alone.",
                )
            yield text


def array_start(text: str) -> re.Match[str] | None:
    """The start of an array's assignment, `NAME=(`."""
    return _ARRAY.match(text)


def _matches(word: Word) -> list[re.Match[str]]:
    match = _ASSIGNED.match(word[0][0])
    return [match] if match else []


def _split(text: str, written: str) -> list[str]:
    """The text at its blanks, if they come from variables."""
    if text == written or not any(blank in text for blank in _BLANK):
        return [text]
    parts = text.split()
    start = [""] if text[:1] in _BLANK else []
    end = [""] if text[-1:] in _BLANK else []
    return [*start, *parts, *end]
