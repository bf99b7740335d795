"""Alike experts are read once: the maps and the errors are those of reading each tensor."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from architectures import Entry, entries

from lorascope.errors import LorascopeError
from lorascope.model.json import map_to_json
from lorascope.sources.checkpoint import repeats, to_model_map
from lorascope.sources.checkpoint.conversions.table import SubModel, rules_for
from lorascope.sources.checkpoint.tensor_table import Header, TensorTable
from lorascope.sources.checkpoint.to_model_map import map_headers
from lorascope.sources.checkpoint.types import Checkpoint, Tensor
from tests.helpers.small_configs import small_model

Forms = dict[str, tuple[str, tuple[int, ...]]]


class NoFiles:
    """The files of a checkpoint whose headers have been read."""

    where = "here"
    commit = ""
    names = frozenset[str]()

    def size(self, name: str) -> int:
        raise AssertionError(name)

    def read(self, spans: Any) -> list[bytes]:
        raise AssertionError(spans)


def table_of(forms: Forms, files: int = 2) -> TensorTable:
    """Headers with these tensors in their order, in some files."""
    headers = []
    for number in range(files):
        part = list(forms.items())[number * len(forms) // files : (number + 1) * len(forms) // files]
        headers.append(Header(f"file-{number}", 0, [name for name, _ in part], [(*form, 0) for _, form in part]))
    return TensorTable(headers)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forms, Mapping[str, Any]], tuple[str, str, int]]:
    """What comes of headers with experts read once and one by one, and how many tensors were left out."""
    saved: list[int] = []

    def reduce(headers: Sequence[Header], stacked: repeats.Stacked) -> dict[str, Tensor]:
        found = repeats.reduce(headers, stacked)
        saved.append(len(TensorTable(headers)) - len(found) if found else 0)
        return found

    def outcome(fewest: int, forms: Forms, config: Mapping[str, Any]) -> str:
        monkeypatch.setattr(to_model_map, "FEWEST", fewest)
        try:
            return json.dumps(
                map_to_json(map_headers(Checkpoint(NoFiles(), config, table_of(forms)), config, model=""))
            )
        except LorascopeError as error:
            return str(error)

    def both(forms: Forms, config: Mapping[str, Any]) -> tuple[str, str, int]:
        saved.clear()
        return outcome(1, forms, config), outcome(10**9, forms, config), sum(saved)

    monkeypatch.setattr(to_model_map, "reduce", reduce)
    return both


def stored_forms(entry: Entry) -> tuple[Forms, dict[str, Any]]:
    """Names, dtypes and shapes of a small model as transformers saves it, and its configuration."""
    import tempfile
    from pathlib import Path

    from lorascope.sources.checkpoint.safetensors import open_checkpoint
    from lorascope.sources.files.folder import open_folder

    with tempfile.TemporaryDirectory() as folder:
        small_model(entry).save_pretrained(folder)
        checkpoint = open_checkpoint(open_folder(Path(folder)))
        return {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}, dict(
            checkpoint.config
        )


def quantized(forms: Forms) -> Forms:
    """The same with matrices of experts in fp8 and a scale for each."""
    made: Forms = {}
    for name, (dtype, shape) in forms.items():
        packed = ".experts." in name and len(shape) == 2
        made[name] = ("F8_E4M3" if packed else dtype, shape)
        if packed:
            made[f"{name}_scale_inv"] = ("F32", (1, 1))
    return made


def damaged(forms: Forms, chance: random.Random) -> Forms:
    """The same with tensors missing, renamed, of other shapes or in another order."""
    items = list(forms.items())
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        if not items:
            break
        at = chance.randrange(len(items))
        name, (dtype, shape) = items[at]
        words = name.split(".")
        numbers = [place for place, word in enumerate(words) if word.isdecimal()]
        match chance.randrange(6):
            case 0:
                del items[at]
            case 1:
                items[at] = (name, (dtype, tuple(size + 1 for size in shape)))
            case 2:
                items[at] = (name, (chance.choice(["F32", "F8_E4M3", "I8"]), shape))
            case 3 if numbers:
                words[chance.choice(numbers)] = chance.choice(["0", "1", "7", "00", "99"])
                items[at] = (".".join(words), (dtype, shape))
            case 4:
                # A whole number of a list, in which all tensors are gone.
                place = numbers[-1] if numbers else 0
                items = [item for item in items if item[0].split(".")[: place + 1] != words[: place + 1]] or items
            case _:
                chance.shuffle(items)
    return dict(items)


def mergers() -> Iterator[Entry]:
    """Every architecture whose experts transformers stacks."""
    for entry in entries():
        rules = rules_for([SubModel("", entry.architecture, entry.model_type)], "model")
        if any(operation.name == "MergeModulelist" for rule in rules for operation in rule.operations):
            yield entry


def one(model_type: str) -> Entry:
    return next(entry for entry in mergers() if entry.model_type == model_type)


@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3", "qwen3_moe"])
def test_maps_and_errors_are_those_of_each_tensor(
    model_type: str, outcomes: Callable[[Forms, Mapping[str, Any]], tuple[str, str, int]]
) -> None:
    forms, config = stored_forms(one(model_type))
    chance = random.Random(model_type)
    seen: Counter[str] = Counter()
    for number in range(150):
        given = damaged(quantized(forms) if number % 2 else forms, chance) if number > 1 else forms
        once, each, saved = outcomes(given, config)
        assert once == each, given
        seen["map" if each.startswith("{") else "error"] += 1
        seen["reduced"] += saved > 0
    assert min(seen["map"], seen["error"], seen["reduced"]) > 20, seen


def stacked(pairs: Mapping[str, str]) -> dict[str, bool]:
    """A model that stacks whatever is in a list called `experts`, and keeps `kept` apart."""
    return {first: ".kept." not in first for first in pairs if ".experts." in first or ".kept." in first}


def listed(*names: str, count: int, form: tuple[str, tuple[int, ...]] = ("F32", (2, 2))) -> Forms:
    """Each name with each number."""
    return {name.format(number): form for number in range(count) for name in names}


EXPERTS = listed("a.experts.{}.w1.weight", "a.experts.{}.w2.weight", "b.experts.{}.w1.weight", count=120)
FIRST = {"a.experts.0.w1.weight": 120, "a.experts.0.w2.weight": 120, "b.experts.0.w1.weight": 120}


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ({"x": ("F32", (1,)), **EXPERTS, "y.3": ("F32", (1,))}, {"x": 1, **FIRST, "y.3": 1}),
        # Another dtype for one of the endings, and deeper lists of other lengths.
        (
            {**EXPERTS, **listed("a.experts.{}.s", count=120, form=("I8", ()))},
            {**FIRST, "a.experts.0.s": 120},
        ),
        (listed("a.experts.{}.w.0.x", count=3), {}),
        # What is not stacked, alone or beside what is.
        (listed("a.kept.{}.w", count=3), {}),
        (listed("a.other.{}.w", count=3), {}),
        # One of the lists is not alike: its tensors stay, in their order.
        (
            {**EXPERTS, "b.experts.7.w1.weight": ("F16", (2, 2))},
            {
                **dict.fromkeys(["a.experts.0.w1.weight", "a.experts.0.w2.weight"], 120),
                **dict.fromkeys(listed("b.experts.{}.w1.weight", count=120), 1),
            },
        ),
        ({"a.experts.0.w": ("F32", (1,))}, {}),
        ({"a.experts.1.w": ("F32", (1,)), "a.experts.2.w": ("F32", (1,))}, {}),
    ],
)
def test_number_0_stands_for_the_others(forms: Forms, expected: dict[str, int]) -> None:
    for files in (1, 2, 5):
        found = repeats.reduce(table_of(forms, files).headers, stacked)
        assert {name: tensor.repeats for name, tensor in found.items()} == expected
        place = {name: index for index, name in enumerate(forms)}
        assert [*found] == sorted(found, key=place.__getitem__)


def test_another_order_is_left_alone() -> None:
    """What comes of names depends on their order here and there, and number 0 keeps only its own place."""
    assert repeats.reduce(table_of(dict(sorted(EXPERTS.items(), reverse=True))).headers, stacked) == {}


@pytest.mark.slow
def test_maps_of_all_architectures_with_experts(
    outcomes: Callable[[Forms, Mapping[str, Any]], tuple[str, str, int]],
) -> None:
    seen: Counter[str] = Counter()
    for entry in mergers():
        forms, config = stored_forms(entry)
        chance = random.Random(entry.label)
        for number in range(6):
            given = forms if number == 0 else quantized(forms) if number == 1 else damaged(quantized(forms), chance)
            once, each, saved = outcomes(given, config)
            assert once == each, (entry.label, given)
            seen["reduced"] += saved > 0 and number < 2
            seen["tried"] += 1
    assert seen == {"tried": 6 * 47, "reduced": 90}, seen
