"""The part of `docs/held-out.md` on models of other people's libraries, from `tests/conformance/others.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_RECORDED = Path(__file__).resolve().parents[1] / "tests/conformance/others.json"
_VERDICTS = ("right", "open", "coarse", "none", "wrong")
_KINDS = {"names": "by names", "dataflow": "by dataflow"}
_LIBRARIES = "timm 1.0, x-transformers 2.31, vit-pytorch 1.26, open_clip 3.3 and diffusers 0.42"

Roles = Mapping[str, Mapping[str, int]]


def others_section() -> Iterator[str]:
    """The lines of the part."""
    recorded = json.loads(_RECORDED.read_text(encoding="utf-8"))
    yield from ("## Models of other people's libraries", "")
    yield f"44 models of {_LIBRARIES}, under their own names and at small sizes,"
    yield "with the role of each weight decided by reading the forward pass (`tests/others`). The first look was taken before any"
    yield "rule was mended on them. Here *none* includes `other`, a guess and a trace that did not get there."
    yield ""
    yield "| | weights | right | open | coarse | none | wrong | precision | recall |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for when, figures in (("first look", recorded["first"]), ("today", recorded)):
        for kind, title in _KINDS.items():
            yield _row(f"{title}, {when}", figures[kind].values())
    yield ""
    yield "By role, today; names and dataflow side by side:"
    yield ""
    yield "| role | weights | right by names | none | wrong | right by dataflow | open or coarse | none | wrong |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for role in recorded["dataflow"]:
        names, flow = (Counter(recorded[kind][role]) for kind in _KINDS)
        good = flow["open"] + flow["coarse"]
        cells = (
            names["right"] + names["open"],
            names["none"],
            names["wrong"],
            flow["right"],
            good,
            flow["none"],
            flow["wrong"],
        )
        yield f"| {role} | {flow.total():,} | " + " | ".join(f"{cell:,}" for cell in cells) + " |"
    yield ""


def _row(title: str, several: Iterable[Mapping[str, int]]) -> str:
    total: Counter[str] = Counter()
    for counts in several:
        total.update(counts)
    good, wrong = total["right"] + total["open"], total["wrong"]
    figures = " | ".join(f"{total[verdict]:,}" for verdict in _VERDICTS)
    return f"| {title} | {total.total():,} | {figures} | {good / (good + wrong):.1%} | {good / total.total():.1%} |"
