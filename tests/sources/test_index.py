"""An index that is compared as text says what it says when it is parsed."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint import index
from lorascope.sources.checkpoint.index import Index
from lorascope.sources.checkpoint.tensor_table import Header, TensorTable
from lorascope.sources.files.json_text import parse_object

FILES = ("model-1-of-2.safetensors", "model-2-of-2.safetensors")


def table(weight_map: dict[str, str]) -> TensorTable:
    """The headers that an index describes."""
    parts = {file: [name for name in weight_map if weight_map[name] == file] for file in FILES}
    return TensorTable([Header(file, 0, names, [("F32", (), 4)] * len(names)) for file, names in parts.items()])


def outcome(text: bytes, tensors: TensorTable) -> Any:
    """What an index says of headers."""
    try:
        read = Index(text, "index", (*FILES, "other.safetensors"))
        agrees = read.agrees(tensors)
        return read.shards, agrees, [] if agrees else list(read.disagreements(tensors))
    except LorascopeError as error:
        return str(error)


def texts(weight_map: dict[str, str], chance: random.Random) -> bytes:
    """An index as libraries write it, or damaged."""
    data = {"metadata": {"total_size": 12}, "weight_map": weight_map}
    way = chance.randrange(4)
    indent, order = (2, True) if way == 0 else (None, False)
    separators = (",", ":") if way == 1 else None
    text = json.dumps(
        data if way < 3 else {"weight_map": weight_map}, indent=indent, sort_keys=order, separators=separators
    )
    for _ in range(chance.choice([0, 1, 1, 2])):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(6):
            case 0:
                text = text[:at] + chance.choice(list('",:{}[] \n\\\té1')) + text[at:]
            case 1:
                text = text[:at] + text[at + 1 :]
            case 2:
                text = text.replace(
                    chance.choice(FILES), chance.choice([*FILES, "other.safetensors", "../x", "gone.safetensors"]), 1
                )
            case 3:
                text = text.replace("layer", chance.choice(["Layer", "layer", "lay\\u0065r", "a}b", 'a\\"b']), 1)
            case 4:
                # An entry twice, and an object twice.
                cut = chance.choice([', "', ",\n"])
                entry = f'"layer.1": "{chance.choice(FILES)}"'
                text = text.replace("}", f"{cut[0]} {entry}}}", chance.choice([1, 2]))
            case _:
                text = text.replace(
                    "}", chance.choice([",}", "} ", '}, "weight_map": {}', '}, "more": {"weight_map": {}}']), 1
                )
    return text.encode()


@pytest.mark.parametrize("part", [1, 40, 2**16])
def test_both_ways_agree(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(part)
    plain_entries = index._plain_entries
    monkeypatch.setattr(index, "_PART", part)
    seen: Counter[str] = Counter()
    for _ in range(4_000):
        weight_map = {f"layer.{number}": chance.choice(FILES) for number in range(chance.randint(1, 6))}
        tensors = table({**weight_map, **({"layer.0": FILES[0]} if chance.random() < 0.2 else {})})
        text = texts(weight_map, chance)
        as_text = outcome(text, tensors)
        monkeypatch.setattr(index, "_plain_entries", lambda text: (0, 0))
        parsed = outcome(text, tensors)
        monkeypatch.setattr(index, "_plain_entries", plain_entries)
        assert as_text == parsed, text
        seen["plain"] += plain_entries(text) != (0, 0)
        seen["error" if isinstance(parsed, str) else "agrees" if parsed[1] else "disagrees"] += 1
    assert min(seen["plain"], seen["error"], seen["agrees"], seen["disagrees"]) > 300, seen


def test_an_index_as_written_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what stands around its entries is."""
    lengths: list[int] = []

    def record(data: bytes, *words: str) -> dict[str, Any]:
        lengths.append(len(data))
        return parse_object(data, *words)

    monkeypatch.setattr(index, "parse_object", record)
    weight_map = {f"layer.{number}": FILES[number % 2] for number in range(5_000)}
    for indent in (None, 2):
        text = json.dumps({"metadata": {"total_size": 20_000}, "weight_map": weight_map}, indent=indent).encode()
        assert outcome(text, table(weight_map)) == ([*FILES], True, [])
    assert len(lengths) == 2
    assert max(lengths) < 100
    assert outcome(text, table({**weight_map, "layer.7": FILES[0]})) == (
        [*FILES],
        False,
        [f"the tensor 'layer.7' is {FILES[1]} by the index, {FILES[0]} in fact"],
    )
    assert len(lengths) == 4
