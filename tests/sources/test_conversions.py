"""Renaming and merging are transformers': its own rules, its own operations, and models that it saved."""

from __future__ import annotations

import copy
import itertools
import json
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import build_conversions
import pytest
import torch
import transformers
from architectures import Entry, entries, layouts
from safetensors import safe_open
from transformers import conversion_mapping, core_model_loading

from lorascope.sources.builtin import builtin_models, load_builtin
from lorascope.sources.checkpoint.conversions.convert import Converted, convert
from lorascope.sources.checkpoint.conversions.names import grouped, source_pattern
from lorascope.sources.checkpoint.conversions.operations import OPERATIONS
from lorascope.sources.checkpoint.conversions.table import ConversionRule, SubModel, rules_for, version
from lorascope.sources.checkpoint.types import Stored
from tests.helpers.small_configs import small_model

TABLE = conversion_mapping._build_checkpoint_conversion_mapping()


def stored(names: Mapping[str, tuple[int, ...]]) -> dict[str, Stored]:
    return {name: Stored(name, shape, "BF16", sources=(name,)) for name, shape in names.items()}


def submodels(model: Any) -> list[SubModel]:
    return [
        SubModel(path, type(module).__name__, module.config.model_type or "")
        for path, module in model.named_modules()
        if isinstance(module, transformers.PreTrainedModel)
    ]


def ours(identifier: str) -> tuple[ConversionRule, ...]:
    """The rules of one identifier, without the legacy ones that come with every model."""
    legacy = len(TABLE["legacy"])
    return rules_for([SubModel("", identifier, "")], "")[:-legacy] if identifier != "legacy" else rules_for([], "")


# --- the table ---------------------------------------------------------------------------------------------------------


def test_table_is_that_of_the_installed_transformers() -> None:
    made = build_conversions.table()
    assert build_conversions.TABLE.read_text(encoding="utf-8") == build_conversions.table_text(made), (
        "run tools/build_conversions.py"
    )
    assert version() == transformers.__version__
    assert made["rules"].keys() | made["aliases"].keys() == TABLE.keys()
    assert (len(made["rules"]), len(made["aliases"])) == (150, 111)


def test_every_rule_is_the_one_that_transformers_has() -> None:
    kinds: Counter[str] = Counter()
    for identifier, transforms in TABLE.items():
        rules = ours(identifier)
        assert len(rules) == len(transforms), identifier
        for rule, transform in zip(rules, transforms, strict=True):
            if rule.kind == "pair":
                assert rule.sources == (transform.pattern.pattern,)
            else:
                assert source_pattern(rule.sources).pattern == transform.compiled_sources.pattern
                assert list(rule.targets) == transform.target_patterns
            names = [type(operation).__name__ for operation in getattr(transform, "operations", ())]
            assert [operation.name for operation in rule.operations] == names
            kinds[rule.kind] += 1
    assert kinds == {"rename": 1316, "convert": 184, "group": 2, "offset": 2, "pair": 1}


@pytest.mark.parametrize("unknown", ["kind", "operation", "capture", "order"])
def test_the_generator_refuses_what_nothing_restates(unknown: str) -> None:
    class Odd(core_model_loading.WeightRenaming):
        pass

    class Strange(core_model_loading.Transpose):
        pass

    merge = core_model_loading.MergeModulelist()
    transform = {
        "kind": lambda: Odd("a", "b"),
        "operation": lambda: core_model_loading.WeightConverter("a", "b", [Strange()]),
        "capture": lambda: core_model_loading.WeightRenaming("a", r"\1b"),
        "order": lambda: core_model_loading.WeightConverter("a", "b", [core_model_loading.Transpose(), merge]),
    }[unknown]()
    with pytest.raises(ValueError, match=r"restate|captures nothing"):
        build_conversions.row(transform)


# --- names -------------------------------------------------------------------------------------------------------------


def names_of(pattern: str, numbers: tuple[str, ...] = ("0", "3", "10")) -> set[str]:
    """A few names that a source pattern finds, or just misses."""
    text = re.sub(r"\(\?<?[!=][^()]*(\([^()]*\))?[^()]*\)", "", pattern).removeprefix("^")
    bodies = {text}
    while any("(" in body for body in bodies):
        bodies = {
            body.replace(group.group(0), choice, 1)
            for body in bodies
            for group in re.finditer(r"\((?:\?:)?([^()]*)\)", body)
            for choice in group.group(1).split("|")
        }
    found = set()
    for body, number in itertools.product(bodies, numbers):
        plain = body.replace(r"[123]", "2").replace(r"[0-9]", "2").replace(r"\d+", number).replace(".+", "some.2.name")
        plain = plain.replace("*.", f".{number}.").replace("\\", "").replace("..", ".").strip("^$")
        for before, after in itertools.product(("", "model.", "model.layers.10."), ("", ".weight", "weight")):
            found.add((before + plain + after).replace("..", ".").strip("."))
    return found - {""}


def renamed(names: set[str], rules: tuple[ConversionRule, ...]) -> dict[str, tuple[str, str]]:
    return {name: (group.renamed, group.pattern) for group in grouped(names, rules) for _, name in group.members}


def oracle(names: set[str], transforms: list[Any]) -> dict[str, tuple[str, str]]:
    transforms = copy.deepcopy(transforms)
    converters = [t for t in transforms if isinstance(t, core_model_loading.WeightConverter)]
    renamings = [t for t in transforms if isinstance(t, core_model_loading.WeightRenaming)]
    found = {}
    for name in sorted(names, key=core_model_loading.dot_natural_key):
        key, pattern = core_model_loading.rename_source_key(name, renamings, converters)
        found[name] = (key, pattern or "")
    return found


def builtin_names() -> list[str]:
    """A name of every template among the parameters of the built-in models' image-text models."""
    names = set()
    for model_type, heads in builtin_models().items():
        if "image-text-to-text" in heads:
            for module in load_builtin(model_type, "image-text-to-text").modules:
                names |= {f"{re.sub(r'[0-9]+', '11', module.name)}.{name}" for name, _ in module.parameters}
    return sorted(names)


@pytest.mark.parametrize(
    ("numbers", "real", "least"),
    [
        (("10",), False, 12_000),
        pytest.param(("0", "1", "2", "3", "10", "127"), True, 95_000, marks=pytest.mark.slow),
    ],
    ids=["quick", "all"],
)
def test_names_become_what_transformers_makes_of_them(numbers: tuple[str, ...], *, real: bool, least: int) -> None:
    tried = changed = 0
    others = builtin_names() if real else []
    assert len(others) > 2_000 or not real
    for identifier, transforms in TABLE.items():
        sources = {source for rule in ours(identifier) for source in rule.sources}
        names = {name for source in sources for name in names_of(source, numbers)}
        names |= set(others[len(identifier) % 7 :: 7])
        truth = oracle(names, transforms)
        found = renamed(names, ours(identifier))
        assert {n: (found[n], truth[n]) for n in names if found[n] != truth[n]} == {}, identifier
        tried += len(names)
        changed += sum(new != name for name, (new, _) in truth.items())
    assert tried > least
    assert changed > least / 5


@pytest.mark.parametrize(("path", "prefix"), [("model.vision.2", "model"), ("model", "model"), ("audio", "model")])
def test_rules_of_a_part_touch_only_its_names(path: str, prefix: str) -> None:
    tried = changed = 0
    for identifier in ("kimi_k25", "qwen2_moe", "LlavaModel", "UnlimitedOcrSamVisionEncoder", "inkling2_text"):
        transforms = copy.deepcopy(TABLE[identifier])
        for transform in transforms:
            transform.scope_prefix = path.removeprefix(prefix).removeprefix(".")
            transform.base_model_prefix = prefix
        names = {name for transform in transforms for source in transform.source_patterns for name in names_of(source)}
        names |= {f"{part}.{name}" for part in (path, path.removeprefix("model."), "vision.3") for name in names}
        rules = rules_for([SubModel(path, identifier, "")], prefix)[: -len(TABLE["legacy"])]
        truth = oracle(names, transforms)
        assert renamed(names, rules) == truth
        tried += len(names)
        changed += sum(new != name for name, (new, _) in truth.items())
    assert tried > 2_000
    assert changed > 500


def test_a_group_waits_for_its_first_pattern() -> None:
    for had, has in (((1, 2), (1, 2)), ((0, 1), (1, 2))):
        names = {f"vision_tower.encoder.blocks.{i}.norm{n}.weight" for i in (0, 2, 10) for n in had}
        found = renamed(names, ours("kimi_k25"))
        assert found == oracle(names, TABLE["kimi_k25"])
        assert {
            int(re.search(r"norm(.)", name)[1]): int(re.search(r"norm(.)", new)[1]) for name, (new, _) in found.items()
        } == dict(zip(had, has, strict=True))  # type: ignore[index]


# --- shapes ------------------------------------------------------------------------------------------------------------

CONFIG = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "hidden_size": 6, "unpadded_vocab_size": 5}


class Model:
    """What transformers' operations ask of a model."""

    config = types.SimpleNamespace(**CONFIG, vision_config=types.SimpleNamespace(num_attention_heads=2))
    config.get_text_config = lambda: types.SimpleNamespace(**CONFIG)

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def get_parameter(self, name: str) -> torch.Tensor:
        return torch.empty(self.shapes[name], device="meta")


def cases() -> Iterator[tuple[str, Any, ConversionRule]]:
    """Every distinct converter of the table."""
    seen = set()
    for identifier, transforms in TABLE.items():
        for transform, rule in zip(transforms, ours(identifier), strict=True):
            key = (rule.sources, rule.targets, str(rule.operations))
            if rule.kind == "convert" and key not in seen:
                seen.add(key)
                yield identifier, transform, rule


@pytest.mark.parametrize(
    ("side", "count", "expected"),
    [
        ((16, 6), 1, (61, 8)),
        ((16, 6), 4, (63, 6)),
        ((16, 8), 4, (63, 6)),
        ((7, 6), 4, (56, 11)),
        ((16,), 4, (56, 13)),
        ((8, 4, 6), 1, (66, 7)),
        ((8, 4, 6), 4, (68, 5)),
        ((8, 6, 4), 4, (68, 5)),
        ((), 4, (8, 63)),
    ],
)
def test_operations_make_the_shapes_that_transformers_makes(
    side: tuple[int, ...], count: int, expected: tuple[int, int]
) -> None:
    """Every converter of the table on real tensors of these sides, lists of them with `count` members."""
    done: Counter[str] = Counter()
    made = refused = 0
    for identifier, transform, rule in cases():
        listed = any(
            operation.name in ("MergeModulelist", "ErnieFuseAndSplitTextVisionExperts") for operation in rule.operations
        )
        names = {}
        for source in rule.sources:
            for number in range(count if listed else 1):
                plain = source.replace("*", str(number)).replace("\\", "")
                names[f"model.layers.3.x{plain}" if plain[0] == "." else f"model.layers.3.{plain}"] = (source, side)
        full, _ = core_model_loading.rename_source_key(next(iter(names)), [], [copy.deepcopy(transform)])
        # The run-time shapes that Split and the checked Transpose look up.
        lookup = {full: (side[0], side[2], side[1]) if len(side) == 3 and side[1] == 6 else side}
        lookup |= {full.replace(rule.targets[0], t): (8, 6) if "q_proj" in t else (4, 6) for t in rule.targets}
        real = copy.deepcopy(transform)
        for name, (source, shape) in names.items():
            real.add_tensor(full, name, source, lambda shape=shape: torch.zeros(shape))
        try:
            truth = {
                key: value[0] if isinstance(value, list) else value
                for key, value in real.convert(full, Model(lookup), Model.config).items()
            }
        except Exception:
            truth = {}
        found = convert(
            stored({name: shape for name, (_, shape) in names.items()}),
            [rule],
            known=lambda name: name.startswith("model."),
            base_model_prefix="-",
            config={"text_config": CONFIG},
            expected_shape=lookup.get,
        )
        if not truth and not found.faults:
            # Which halves of which head a permutation swaps needs the number of heads, and changes no shape.
            assert "PermuteForRope" in [operation.name for operation in rule.operations]
            continue
        assert bool(found.faults) == (not truth), (identifier, rule, found.faults)
        assert {k: v.shape for k, v in found.tensors.items()} == {k: tuple(v.shape) for k, v in truth.items()}, (
            identifier
        )
        made, refused = made + bool(truth), refused + (not truth)
        done.update(operation.name for operation in rule.operations if truth)
    assert (made, refused) == expected
    if len(side) == 3 and count == 4:
        assert done.keys() == OPERATIONS.keys() - {"Split", "Inkling2LoopDequantizeExperts"}
    assert ("Split" in done) == (side[:1] == (16,))


@pytest.mark.parametrize("present", [1, 2, 4])
def test_packed_experts_come_out_in_the_shape_that_transformers_gives_them(present: int) -> None:
    """The stack alone, with scales of 32 values, and with scales of 16 and a largest value for two codes in a byte."""
    tried = 0
    for _, transform, rule in cases():
        if rule.operations[0].name != "Inkling2LoopDequantizeExperts":
            continue
        shapes = [(4, 6, 64), (4, 6, 8 if present == 4 else 2), (4,), ()][:present]
        names = {
            f"model.layers.3.{source}".replace("\\", ""): (source, shape)
            for source, shape in zip(rule.sources, shapes, strict=False)
        }
        full = f"model.layers.3.{rule.targets[0]}"
        real = copy.deepcopy(transform)
        for name, (source, shape) in names.items():
            real.add_tensor(full, name, source, lambda shape=shape: torch.ones(shape))
        truth = real.convert(full, Model({full: (4, 6, 128 if present == 4 else 64)}), Model.config)
        found = convert(
            stored({name: shape for name, (_, shape) in names.items()}),
            [rule],
            known=full.__eq__,
            base_model_prefix="-",
            config={},
            expected_shape=lambda _: None,
        )
        assert (found.faults, found.unknown) == ((), {})
        assert [one.shape for one in found.tensors.values()] == [tuple(next(iter(truth.values())).shape)]
        tried += 1
    assert tried == 2


def experts(numbers: tuple[int, ...], *parts: str, side: tuple[int, ...] = (4, 6)) -> dict[str, tuple[int, ...]]:
    return {f"model.layers.1.mlp.experts.{i}.{part}.weight": side for i in numbers for part in parts}


def merged(names: Mapping[str, tuple[int, ...]], **changes: Any) -> Converted:
    """The names as a qwen3_moe checkpoint, whose model has one layer of experts."""
    has = {"model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj", "model.norm.weight"}
    return convert(
        {name: changes.get(name, one) for name, one in stored(names).items()},
        rules_for([SubModel("", "Qwen3MoeForCausalLM", "qwen3_moe")], "model"),
        known=has.__contains__,
        base_model_prefix="model",
        config={},
        expected_shape=lambda _: None,
    )


ALL = ("gate_proj", "up_proj")


def test_merged_experts_remember_where_they_come_from() -> None:
    names = experts((1, 0, 2), *ALL) | experts((0, 1, 2), "down_proj", side=(6, 4))
    odd = "model.layers.1.mlp.experts.1.up_proj.weight"
    found = merged(names, **{odd: Stored(odd, (4, 6), "F8_E4M3", "fp8", (odd, odd + "_scale_inv"))})
    assert (found.unknown, found.faults) == ({}, ())
    assert {name: one.shape for name, one in found.tensors.items()} == {
        "model.layers.1.mlp.experts.gate_up_proj": (3, 8, 6),
        "model.layers.1.mlp.experts.down_proj": (3, 6, 4),
    }
    fused = found.tensors["model.layers.1.mlp.experts.gate_up_proj"]
    assert (fused.dtype, fused.quantization) == ("BF16 + F8_E4M3", "none + fp8")
    assert len(fused.sources) == 7
    assert set(found.tensors["model.layers.1.mlp.experts.down_proj"].sources) == {n for n in names if "down" in n}


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (
            experts((0, 1, 3), *ALL),
            "of 3 tensors such as model.layers.1.mlp.experts.3.gate_proj.weight, number 2 is missing",
        ),
        (experts((1, 2), *ALL), "number 0 is missing"),
        (experts((0, 1, 10**18), *ALL), "number 2 is missing"),
        ({**experts((0, 1), *ALL), "model.layers.1.mlp.experts.01.up_proj.weight": (4, 6)}, "number 1 comes twice"),
        (experts((0, 1), *ALL) | experts((2,), "up_proj"), "do not fit together along axis 1: 2 × 4 × 6, 3 × 4 × 6"),
        (experts((0, 1), "up_proj"), 'nothing matches "mlp.experts.*.gate_proj.weight"'),
        (experts((0, 1, 2), *ALL) | experts((1,), "up_proj", side=(4, 5)), "differ: 2 of 4 × 6, 1 of 4 × 5"),
        (experts((0, 1), "gate_proj", side=()) | experts((0, 1), "up_proj", side=()), "has no axis 1"),
        (experts((0,), *ALL) | {"model.layers.1.mlp.experts.gate_up_proj": (1, 8, 6)}, "is there already"),
        ({"model.norm.weight": (6,), "norm.weight": (5,)}, "all go there, with shapes 6, 5"),
    ],
)
def test_experts_that_do_not_fit_are_a_fault(names: dict[str, tuple[int, ...]], fault: str) -> None:
    found = merged(names)
    assert len(found.faults) == 1
    assert fault in found.faults[0]
    assert found.faults[0].startswith(("model.layers.1.mlp.experts.gate_up_proj: ", "model.norm.weight: "))
    assert not found.tensors


def test_all_faults_are_listed_and_the_rest_is_converted() -> None:
    found = merged(experts((0, 2), *ALL) | experts((1,), "down_proj") | {"norm.weight": (6,), "rotary.inv_freq": (2,)})
    assert len(found.faults) == 2
    assert list(found.tensors) == ["model.norm.weight"]
    assert found.unknown == {"rotary.inv_freq": "rotary.inv_freq"}


def test_experts_of_a_layer_that_the_model_lacks_are_unknown() -> None:
    names = {name.replace("layers.1", "layers.2"): side for name, side in experts((0, 1), *ALL).items()}
    found = merged(names)
    assert found.unknown == dict.fromkeys(names, "model.layers.2.mlp.experts.gate_up_proj")
    assert (dict(found.tensors), found.faults) == ({}, ())


@pytest.mark.parametrize("name", ["model.{0}.weight", "model.٣.norm", "a" + ".1" * 40, "", ".", "1.2.3", "model.1.{.x"])
def test_odd_names_stay_as_they_are(name: str) -> None:
    assert merged({name: (1,)}).unknown == {name: name}


def test_a_shape_that_only_the_configuration_tells() -> None:
    for config, fault in (
        ({"text_config": CONFIG}, ""),
        (CONFIG, ""),
        ({"text_config": {"num_attention_heads": 2}}, "depends on head_dim, which config.json does not say"),
        ({"text_config": None}, "depends on num_attention_heads"),
        ({**CONFIG, "num_key_value_heads": 2}, "cannot be split into 8, 8, 8 along axis 0"),
    ):
        found = convert(
            stored({"blocks.0.self_attn.att_proj.weight": (16, 6)}),
            rules_for([SubModel("", "Molmo2TextModel", "molmo2_text")], ""),
            known=lambda name: "_proj" in name,
            base_model_prefix="",
            config=config,
            expected_shape=lambda _: None,
        )
        assert [fault in text for text in found.faults] == [True] * bool(fault)
        if not fault:
            assert [one.shape for one in found.tensors.values()] == [(8, 6), (4, 6), (4, 6)]


# --- models ------------------------------------------------------------------------------------------------------------


def headers(folder: Path) -> dict[str, Stored]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found[name] = Stored(name, tuple(part.get_shape()), part.get_dtype(), sources=(name,))
    return found


def unknown_to_transformers(model: Any, names: Mapping[str, Stored]) -> set[str]:
    """The names that loading would call unexpected, by transformers' own functions."""
    transforms = conversion_mapping.get_model_conversion_mapping(model)
    converters = [t for t in transforms if isinstance(t, core_model_loading.WeightConverter)]
    renamings = [t for t in transforms if isinstance(t, core_model_loading.WeightRenaming)]
    meta = model.state_dict()
    found = set()
    for name in sorted(names, key=core_model_loading.dot_natural_key):
        key, _ = core_model_loading.rename_source_key(name, renamings, converters, model.base_model_prefix, meta)
        if key not in meta and name not in meta:
            found.add(name)
    return found


def differences(model: Any, found: Converted) -> list[str]:
    """Where what was found is not what the model has, but for tied parameters, which are stored once."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    stored_once = {id(parameters[name]) for name in found.tensors if name in parameters}
    wrong = list(found.faults)
    wrong += [f"{name} is missing" for name, one in parameters.items() if id(one) not in stored_once]
    everything = {**model.state_dict(), **parameters}
    for name, one in found.tensors.items():
        has = everything.get(name)
        if has is None or tuple(has.shape) != one.shape:
            wrong.append(f"{name} is {one.shape}")
    return wrong


def saved_with_rules() -> Iterator[Entry]:
    """Entries whose class or model type has rules of its own."""
    for entry in (*entries(), *layouts()):
        if (entry.model_type in TABLE or entry.architecture in TABLE) and entry.model_type != "gemma4_assistant":
            yield entry


@pytest.mark.slow
def test_saved_models_come_out_as_they_are(tmp_path: Path) -> None:
    done: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    for number, entry in enumerate(saved_with_rules()):
        model = small_model(entry)
        model.save_pretrained(tmp_path / str(number))
        raw = headers(tmp_path / str(number))
        config = json.loads((tmp_path / str(number) / "config.json").read_text(encoding="utf-8"))
        prefix, state = f"{model.base_model_prefix}.", model.state_dict()
        # As a base model's checkpoint has them.
        short = {name.removeprefix(prefix): one for name, one in raw.items()}
        for kind, names in (("whole", raw), ("stripped", short)):
            if kind == "stripped" and (names.keys() == raw.keys() or len(names) < len(raw)):
                continue
            found = convert(
                names,
                rules_for(submodels(model), model.base_model_prefix),
                known=state.__contains__,
                base_model_prefix=model.base_model_prefix,
                config=config,
                expected_shape=lambda _: None,
            )
            done[kind] += 1
            done[f"{kind}, merged"] += any(len(one.sources) > 1 for one in found.tensors.values())
            assert found.unknown.keys() == unknown_to_transformers(model, names), entry
            if found.unknown:
                done[f"{kind}, unknown to transformers"] += 1
            elif wrong_here := differences(model, found):
                wrong[f"{entry.head} {entry.label} {kind}"] = wrong_here[:3]
    assert wrong == {}
    assert done == {
        "whole": 132,
        "whole, merged": 61,
        "whole, unknown to transformers": 1,  # shieldgemma2
        "stripped": 90,
        "stripped, merged": 51,
        "stripped, unknown to transformers": 17,
    }
