"""What a trace did not reach is told part by part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lorascope as ls
from lorascope.tracing.unreached import unreached_note


def test_a_whole_part_has_one_name_and_its_number_of_weights() -> None:
    tower = [f"tower.layers.{layer}.{name}" for layer in range(3) for name in ("a", "b")]
    text = [f"text.layers.{layer}.{name}" for layer in range(3) for name in ("a", "b")]
    assert unreached_note([*tower, *text], []) == ""
    assert unreached_note([*tower, *text], tower) == (
        "No call reached these parts, so only their names speak: tower (6). 6 of 12 weights were not executed."
    )
    note = unreached_note([*tower, *text], [*tower[:2], "text.layers.0.b", "text.layers.2.b"])
    assert "speak: tower.layers.# (2), text.layers.#.b (2)." in note
    assert "4 of 12 weights" in note


def test_the_largest_parts_are_named_and_the_others_counted() -> None:
    names = ["here", *(f"part{'x' * size}.{weight}" for size in range(9) for weight in "abcdefghi"[: size + 1])]
    note = unreached_note(names, names[1:])
    assert f"speak: part{'x' * 8} (9), part{'x' * 7} (8)" in note
    assert "and 3 more parts. 45 of 46 weights were not executed." in note


@pytest.mark.parametrize("called", [True, False])
def test_a_trace_says_first_what_it_did_not_reach(called: bool) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)
            self.other = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.table(ids)
            return self.head(self.other(x) if called else x)

    traced = ls.inspect(Halves(), trace=True, inputs={"ids": torch.tensor([[3, 1, 4]])})
    assert traced.notes[:1] == (
        ()
        if called
        else ("No call reached these parts, so only their names speak: other (2). 2 of 4 weights were not executed.",)
    )
