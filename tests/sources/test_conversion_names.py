"""Names sorted into templates by their last numbers: against splitting each name at all of its numbers."""

from __future__ import annotations

import random
import re
from collections import defaultdict

from lorascope.sources.checkpoint.conversions.names import _templates

WORDS = ("experts", "0", "1", "12", "007", "", "w1", "é\n", "٣")
WEIGHTS = (9, 9, 9, 9, 1, 1, 1, 1, 1)


def test_templates_and_numbers() -> None:
    chance = random.Random(7)
    series = 0
    for _ in range(2_000):
        names = dict.fromkeys(
            ".".join(chance.choices(WORDS, WEIGHTS, k=chance.randint(1, 5))) for _ in range(chance.randint(1, 60))
        )
        expected = defaultdict(list)
        for name in names:
            pieces = re.split(r"\.([0-9]+)(?=\.)", name)
            expected[tuple(pieces[::2])].append((tuple(pieces[1::2]), name))
        found = {
            texts: [(before + last, name) for before, members in each for last, name in members]
            for texts, each in _templates(names).items()
        }
        assert list(found) == list(expected)
        assert {texts: sorted(found[texts]) for texts in found} == {
            texts: sorted(expected[texts]) for texts in expected
        }
        series += sum(len(each) > 1 for each in _templates(names).values())
    assert series > 100
