"""YAML that anyone may have written, read as PyYAML reads it for the trainers, with what it passes over told."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.json_text import MOST_NESTED, first_faults

# Real configurations of trainers have some hundred lines.
MOST_BYTES = 2**20
_MOST_NODES = 100_000
_HINT = "Mend the file, or give names: lorascope check SOURCE q_proj v_proj"


class _Loader(yaml.SafeLoader):
    """PyYAML's own safe loader, kept apart so that nothing that a program adds to that one is added here."""


def parse_yaml(text: str, where: str, hint: str = _HINT) -> dict[str, Any]:
    """The mapping at the top of a YAML text, its values as `yaml.safe_load` gives them.

    PyYAML reads YAML 1.1: `1e-4` is a text there, `no` is false. The trainers use it too, so that is what they see.

    Args:
        text: The text.
        where: The file, for messages.
        hint: What to do about a broken one.

    Raises:
        LorascopeError: It is not YAML, is no mapping of texts, has a key twice, an anchor that repeats a part many
            times over, or is larger or deeper than any real configuration.
    """
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise LorascopeError(f"has more than the {MOST_BYTES} bytes that are read", where=where, hint=hint)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        faults = first_faults(_faults(node)) if node is not None else []
        if faults:
            raise LorascopeError(*faults, where=where, hint=hint)
        value = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise LorascopeError(f"is not YAML: {error.problem or error.context}{place}", where=where, hint=hint) from error
    except yaml.reader.ReaderError as error:
        raise LorascopeError(
            f"is not YAML: character {error.position + 1} is not allowed", where=where, hint=hint
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:  # a date that there is not, brackets without end
        if isinstance(error, LorascopeError):
            raise
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise LorascopeError(f"is not YAML: {said}", where=where, hint=hint) from error
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise LorascopeError(f"holds {found}, not keys with values", where=where, hint=hint)
    strange = [key for key in value if not isinstance(key, str)]
    if strange:
        faults = first_faults(f"the key {quoted(key)} is no text" for key in strange)
        raise LorascopeError(*faults, where=where, hint=hint)
    return value


def _faults(root: yaml.Node) -> Iterator[str]:
    """What PyYAML would pass over: keys given twice, and parts that anchors multiply."""
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
        if isinstance(node, yaml.SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            seen: set[Hashable] = set()
            for key, child in node.value:
                said = getattr(key, "value", None)
                if isinstance(said, str) and said != "<<":
                    if said in seen:
                        yield f"the key {quoted(said)} is given twice (line {key.start_mark.line + 1}): only the last counts"
                    seen.add(said)
                waiting += [(key, depth + 1), (child, depth + 1)]
