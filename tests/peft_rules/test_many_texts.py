"""Lists of thousands of texts, each looked for in every name: as PEFT looks for them, and in a moment."""

from __future__ import annotations

import json
import random
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.peft_rules.matchers import LayerFilter, NameSet, Substrings
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers.samples import sample
from tests.helpers.work import calls_at_most

MANY = 30_000


def outcome(do: Any) -> bool | str:
    """What comes of a call, or the name of what it raises."""
    try:
        return bool(do())
    except TypeError:
        return "TypeError"


def test_substrings_are_those_of_python() -> None:
    """Against the line of PEFT's own code, with texts that begin or hold one another and entries that are no texts."""
    chance = random.Random(1)
    seen: Counter[bool | str] = Counter()
    for _ in range(4_000):
        texts: list[Any] = ["".join(chance.choices("ab.", k=chance.randint(0, 4))) for _ in range(chance.randint(0, 6))]
        if chance.random() < 0.2:
            texts.insert(chance.randint(0, len(texts)), chance.choice([None, 1, b"a"]))
        if chance.random() < 0.8:
            texts = [text for text in texts if text]
        name = "".join(chance.choices("ab.", k=chance.randint(1, 9)))
        found = Substrings(texts)
        wanted = outcome(lambda name=name, texts=texts: any(text in name for text in texts))
        for _ in range(2):  # the second answer is a kept one
            assert outcome(lambda found=found, name=name: found.within(name)) == wanted, (texts, name)
        seen[wanted] += 1
    assert min(seen[True], seen[False], seen["TypeError"]) > 100, seen


@pytest.mark.parametrize("release", [(0, 19), (0, 20), (0, 21)])
def test_layers_are_those_of_the_first_pattern(release: tuple[int, int]) -> None:
    """Of many words, the first that finds a layer; one without a number behind it is passed over."""
    given = tuple([f"word{place}" for place in range(MANY)] + ["experts", "layers", r"blo.ks", "experts"])
    layers = LayerFilter((1,), given, release)
    asked = 5_000
    with calls_at_most(120_000):
        found = {layers.index(f"model.layers.{n}.mlp.experts.{n + 1}.up") for n in range(asked)}
    assert found == set(range(1, asked + 1))
    assert layers.index("model.experts.mlp.layers.7.up") == 7
    assert layers.index("model.blocks.3.up") == 3
    assert layers.index("model.other.3.up") is None
    assert layers.index("layers.4.up") == (4 if release >= (0, 21) else None)


def test_many_block_diagonal_texts() -> None:
    """The texts of `use_bdlora` cost no more than their number and the model's together."""
    model = sample("mixtral")
    settings = {
        "target_modules_bd_a": [f"text{place}" for place in range(MANY)] + ["q_proj", "k_proj", "v_proj"],
        "target_modules_bd_b": [f"more{place}" for place in range(MANY)] + ["o_proj"],
    }
    config = AdapterConfig(
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"), use_bdlora={**settings, "nblocks": 2}
    )
    few = {"target_modules_bd_a": ["q_proj", "k_proj", "v_proj"], "target_modules_bd_b": ["o_proj"], "nblocks": 2}
    with calls_at_most(300_000):
        many = resolve(model, config)
    assert many.refusal is None
    assert len(many.adapted) == 128
    plain = resolve(model, AdapterConfig(target_modules=config.target_modules, use_bdlora=few))
    assert many.adapted == plain.adapted
    assert many.trainable == plain.trainable


def test_saved_entries_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of entries are as many for hundreds of saved modules as for a few."""
    model = sample("mistral")
    made = 0
    first = NameSet.__init__

    def counting(self: NameSet, entries: Any) -> None:
        nonlocal made
        made += 1
        first(self, entries)

    monkeypatch.setattr(NameSet, "__init__", counting)
    numbers: list[int] = []
    for layers in (2, 32):
        made = 0
        saved = [f"{layer}.mlp.{leaf}_proj" for layer in range(layers) for leaf in ("up", "gate", "down")]
        check = ls.check(model, {"target_modules": ["q_proj"], "modules_to_save": saved})
        assert len(check.resolution.saved) >= 3 * layers
        numbers.append(made)
    assert numbers[1] <= numbers[0]
    assert numbers[1] > 0


@pytest.mark.slow
def test_thousands_of_saved_entries(tmp_path: Path) -> None:
    """Experts of a checkpoint of many, each saved by an entry of its own."""
    layers, experts = 60, 64
    stems = [f"{layer}.mlp.experts.{n}.{leaf}_proj" for layer in range(layers) for n in range(experts) for leaf in "gu"]
    names = [f"model.layers.{stem}" for stem in stems] + [f"model.layers.{n}.self_attn.q_proj" for n in range(layers)]
    header: dict[str, Any] = {}
    for place, name in enumerate(names):
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": [8, 8], "data_offsets": [128 * place, 128 * (place + 1)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 128 * len(names))
    (tmp_path / "config.json").write_text('{"model_type": "many", "architectures": ["ManyForCausalLM"]}')
    model = ls.inspect(tmp_path)
    begun = time.process_time()
    check = ls.check(model, {"target_modules": ["q_proj"], "modules_to_save": stems[:6_000]})
    assert time.process_time() - begun < 15
    # Without a dot before them: "0.mlp" ends the name of layer 50 too.
    assert len(check.resolution.saved) == len(stems) == 7_680
    assert len(check.resolution.adapted) == layers
