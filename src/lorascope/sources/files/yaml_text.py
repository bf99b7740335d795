"""Strict YAML, as the trainers' PyYAML reads it, with bounded costs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.files.json_text import MOST_NESTED, first_faults

# Real configurations of trainers have some hundred lines. The longest that are written here list some thousand names.
MOST_BYTES = 2**20
# Each costs about ten microseconds.
_MOST_EVENTS = 50_000
_MOST_NODES = 100_000
_MOST_DIRECTIVES = 100
# Keeps numbers within floats in any base, and those of base 60 from taking quadratic time.
_LONGEST_NUMBER = 256
_HINT = "Mend the file, or give names: lorascope check SOURCE q_proj v_proj"

_STANDARD = "tag:yaml.org,2002:"
_NUMBERS = frozenset((f"{_STANDARD}int", f"{_STANDARD}float"))
_TAGS = _NUMBERS | {f"{_STANDARD}{name}" for name in ("null", "bool", "str", "timestamp", "seq", "map", "merge")}


class _Loader(Composer, SafeConstructor, Resolver):
    """PyYAML's safe loader, without additions of other programs."""

    def __init__(self, events: Sequence[yaml.Event]) -> None:
        self._events = events
        self._at = 0
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def peek_event(self) -> yaml.Event | None:
        return self._events[self._at] if self._at < len(self._events) else None

    def check_event(self, *choices: type[yaml.Event]) -> bool:
        event = self.peek_event()
        return event is not None and (not choices or isinstance(event, choices))

    def get_event(self) -> yaml.Event | None:
        event = self.peek_event()
        self._at += 1
        return event

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            # What PyYAML's constructors raise of values that are none of their tag: `!!bool abc`, `!!int ''`, 2026-13-45.
            reason = str(error) if type(error) is ValueError else ""
            kind = node.tag.removeprefix(_STANDARD)
            problem = f"{quoted(node.value) if isinstance(node, yaml.ScalarNode) else 'this'} is no {kind}"
            problem += f" ({reason})" if reason else ""
            raise ConstructorError(None, None, problem, node.start_mark) from error


def parse_yaml(text: str, where: str, hint: str = _HINT) -> dict[str, Any]:
    """The mapping of a YAML text, as `yaml.safe_load` reads it.

    PyYAML reads YAML 1.1: `1e-4` is a text there, `no` is false. The trainers use it too, so that is what they see.

    Args:
        text: The text.
        where: The file, for messages.
        hint: What to do about a broken one.

    Raises:
        LorascopeError: It is not YAML, not a mapping of texts, has a key twice, an anchor that repeats a part many
            times over, a value that does not fit its tag, a number of hundreds of digits, or is larger or deeper than any
            real configuration.
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise LorascopeError(f"has more than the {MOST_BYTES} bytes that are read", where=where, hint=hint)
    if text.count("\n%") > _MOST_DIRECTIVES:
        raise LorascopeError(f"has more than {_MOST_DIRECTIVES} lines that begin with %", where=where, hint=hint)
    try:
        loader = _Loader(_bounded_events(text, where, hint))
        node = loader.get_single_node()
        faults = first_faults(_faults(node)) if node is not None else []
        if faults:
            raise LorascopeError(*faults, where=where, hint=hint)
        value = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        message = _cut(error.problem or error.context or "")
        raise LorascopeError(f"is not YAML: {message}{place}", where=where, hint=hint) from error
    except yaml.reader.ReaderError as error:
        raise LorascopeError(
            f"is not YAML: character {error.position + 1} is not allowed", where=where, hint=hint
        ) from error
    except RecursionError as error:
        raise LorascopeError("is nested too deeply", where=where, hint=hint) from error
    except (ValueError, OverflowError) as error:
        # Of PyYAML's scanner, on directives and escapes that stand for no number or character.
        if isinstance(error, LorascopeError):
            raise
        raise LorascopeError(f"is not YAML: {_cut(str(error))}", where=where, hint=hint) from error
    if not isinstance(value, dict):
        content = "nothing" if value is None else f"a {type(value).__name__}"
        raise LorascopeError(f"holds {content}, not keys with values", where=where, hint=hint)
    strange = [key for key in value if not isinstance(key, str)]
    if strange:
        faults = first_faults(f"the key {quoted(key)} is not a text" for key in strange)
        raise LorascopeError(*faults, where=where, hint=hint)
    return value


def _bounded_events(text: str, where: str, hint: str) -> list[yaml.Event]:
    """The parser's events, bounded before nodes are made of them.

    Raises:
        LorascopeError: They are.
        YAMLError: It is no YAML.
        ValueError: The same.
    """
    parser = yaml.SafeLoader(text)
    events: list[yaml.Event] = []
    depth = 0
    while parser.check_event():
        event = parser.get_event()  # type: ignore[no-untyped-call]
        events.append(event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_NESTED:
            raise LorascopeError(f"is nested more than {MOST_NESTED} deep", where=where, hint=hint)
        if len(events) > _MOST_EVENTS:
            raise LorascopeError(f"has more than the {_MOST_EVENTS} values that are read", where=where, hint=hint)
    return events


def _faults(root: yaml.Node) -> Iterator[str]:
    """Refused parts: repeated keys, multiplying anchors, odd tags."""
    nodes = 0
    waiting: list[tuple[yaml.Node, int]] = [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > _MOST_NODES:
            yield f"has more than {_MOST_NODES} values, those that its anchors repeat included"
            return
        if depth > MOST_NESTED:
            yield f"is nested more than {MOST_NESTED} deep"
            return
        line = f"line {node.start_mark.line + 1}"
        if node.tag not in _TAGS:
            yield f"has the tag {quoted(node.tag)} ({line}), which is not read"
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
                yield f"holds a number of {len(node.value)} characters ({line})"
            if not node.value.isascii() and any("\ud800" <= c <= "\udfff" for c in node.value):
                yield f"holds half of a surrogate pair ({line})"
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            seen: set[Hashable] = set()
            for key, child in node.value:
                name = getattr(key, "value", None)
                if isinstance(name, str) and name != "<<":
                    if name in seen:
                        yield f"the key {quoted(name)} is given twice (line {key.start_mark.line + 1}): only the last counts"
                    seen.add(name)
                waiting += [(key, depth + 1), (child, depth + 1)]


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
