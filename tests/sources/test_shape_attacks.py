"""Tensors of any shape, figures of any size, in headers, GGUF files and saved maps: every verb gives a result or one clear error."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.cli.main import main
from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.model.json import map_from_json, map_to_json
from lorascope.model.types import ModelMap
from lorascope.names import NUMBER
from lorascope.plan_api import plan
from lorascope.sources.builtin import builtin_models, load_builtin
from lorascope.sources.checkpoint.to_model_map import map_checkpoint
from lorascope.sources.checkpoint.types import Stored
from lorascope.sources.files.gguf_header import Gguf
from lorascope.sources.gguf.to_model_map import map_header
from lorascope.sources.transformers.config import checked_config
from tests.helpers.every_verb import count_of, every_verb
from tests.helpers.samples import TINY_LLAMA, fails, sample
from tests.helpers.sparse_checkpoints import write_checkpoint

Shapes = dict[str, tuple[int, ...]]

TYPES = tuple(
    "llama mixtral qwen2 qwen3_moe gpt2 gpt_neox bloom falcon phi3 gemma3_text mamba jamba bert t5 bart llava qwen2_vl "  # noqa: SIM905
    "gpt_oss deepseek_v3 whisper gpt_bigcode dbrx olmoe minimax zamba2".split()
)
# How many examples a quick run and a slow run try, and one in how many of the verbs each of them gets.
HEADERS, FILES, MAPS = (300, 2_000), (100, 500), (100, 500)
SHARES = (16, 6)

SIZES = st.sampled_from([0, 0, 1, 2, 3, 7, 16, 256, 2**31, 2**39, 2**59])
ANY_SHAPE = st.lists(SIZES, max_size=6).map(tuple).filter(lambda shape: math.prod(filter(None, shape)) < 2**60)
SEEDS = st.integers(0, 2**16)


def small_shapes(model_type: str) -> Shapes:
    """The tensors of a model with two layers and two experts, no side over 16."""
    model = sample(model_type)
    found: Shapes = {}
    for module in model.modules:
        if all(int(number) < 2 for number in NUMBER.findall(module.name)):
            for name, shape in module.parameters:
                found[f"{module.name}.{name}"] = tuple(min(16, size) for size in shape)
    return found | {name: tuple(min(16, size) for size in shape) for name, shape in model.root_parameters}


BASES = {model_type: small_shapes(model_type) for model_type in TYPES}


@st.composite
def headers(draw: st.DrawFn) -> tuple[Shapes, dict[str, Any], int]:
    """Names and shapes of which some are odd, a configuration, and a seed."""
    model_type = draw(st.sampled_from(TYPES))
    shapes = dict(BASES[model_type])
    how = draw(st.sampled_from(["some", "alike", "flat", "all"]))
    if how == "some":
        for name in draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=5)):
            shapes[name] = draw(ANY_SHAPE)
    elif how == "alike":
        end = ".".join(draw(st.sampled_from(sorted(shapes))).split(".")[-2:])
        odd = draw(ANY_SHAPE)
        shapes |= {name: odd for name in shapes if name.endswith(end)}
    elif how == "flat":
        shapes = {name: (math.prod(shape),) for name, shape in shapes.items()}
    else:
        several = draw(st.lists(ANY_SHAPE, min_size=1, max_size=4))
        shapes = {name: several[place % len(several)] for place, name in enumerate(shapes)}
    known = draw(st.sampled_from([True, True, True, False]))
    config: dict[str, Any] = {"model_type": model_type, "architectures": [sample(model_type).architecture]}
    return shapes, config if known else {"model_type": "nobodys"}, draw(SEEDS)


def of_headers(case: tuple[Shapes, dict[str, Any], int]) -> ModelMap:
    shapes, config, _ = case
    stored = {name: Stored(name, shape, "F32", "", (name,)) for name, shape in shapes.items()}
    model = map_checkpoint(stored, config, model="fuzzed")
    if model.basis == "names":  # every number of the file is counted, whatever its shape
        dropped = sum(" position" in note or "mask" in note or "statistics" in note for note in model.notes)
        assert dropped or model.dimensions.parameters == sum(map(math.prod, shapes.values()))
    return model


GGUF_NAMES = (
    *("token_embd.weight", "output.weight", "output_norm.weight"),
    *(f"blk.{n}.attn_{part}.weight" for n in range(2) for part in ("q", "k", "v", "output", "norm", "k_b", "v_b")),
    *(f"blk.{n}.ffn_{part}.weight" for n in range(2) for part in ("gate", "up", "down", "gate_exps", "up_exps")),
    *(
        "blk.0.ffn_gate_inp.weight",
        "blk.0.ssm_in.weight",
        "blk.0.attn_qkv.weight",
        "mm.0.weight",
        "v.patch_embd.weight",
    ),
)
GGUF_SHAPE = st.lists(st.sampled_from([0, 1, 2, 16, 256, 2**31, 2**40]), max_size=4).map(tuple)


@st.composite
def gguf_headers(draw: st.DrawFn) -> tuple[Gguf, int]:
    """The header of a file whose tensors have any shapes, and whose metadata any figures."""
    architecture = draw(
        st.sampled_from(["llama", "qwen3moe", "gpt2", "bert", "deepseek2", "falcon", "nobodys", "clip"])
    )
    tensors: dict[str, tuple[tuple[int, ...], str]] = {
        name: (draw(GGUF_SHAPE | st.just((16, 16))), "F32") for name in draw(st.sets(st.sampled_from(GGUF_NAMES)))
    }
    tensors = {name: one for name, one in tensors.items() if math.prod(one[0]) < 2**63} or {"a": ((1,), "F32")}
    keys = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "expert_count")
    metadata = {
        f"{architecture}.{key}": draw(st.sampled_from([0, 2, 16, 2**31, 2**63, -1, (2, 3), "x"])) for key in keys
    }
    found = {"general.architecture": architecture, **metadata}
    return Gguf("memory/m.gguf", architecture, found, {}, tensors, ("m.gguf",)), draw(SEEDS)


def of_gguf(case: tuple[Gguf, int]) -> ModelMap:
    return map_header(case[0], "m.gguf")


SAVED = {
    model_type: json.dumps(
        map_to_json(
            map_checkpoint(
                {name: Stored(name, shape, "F32", "", (name,)) for name, shape in BASES[model_type].items()},
                {"model_type": model_type, "architectures": [sample(model_type).architecture]},
                model=model_type,
            )
        )
    )
    for model_type in ("llama", "mixtral", "gpt2", "bert", "mamba", "qwen2_vl")
}


def shapes_in(node: Any) -> list[list[Any]]:
    """Every object of parameters in a saved map."""
    if not isinstance(node, dict):
        return []
    own = [node["parameters"]] if "parameters" in node else []
    return own + [found for value in node.values() for found in shapes_in(value)]


@st.composite
def saved_maps(draw: st.DrawFn) -> tuple[Any, int]:
    """The JSON of a map with some odd shapes, figures and groups."""
    data = json.loads(SAVED[draw(st.sampled_from(sorted(SAVED)))])
    places = shapes_in(data["modules"])
    for place in draw(st.lists(st.sampled_from(range(len(places))), min_size=1, max_size=4)):
        parameters: Any = places[place]
        name = draw(st.sampled_from(sorted(parameters)))
        parameters[name] = list(draw(ANY_SHAPE | st.tuples(SIZES, SIZES)))
    if draw(st.booleans()):
        data["dimensions"][draw(st.sampled_from(sorted(data["dimensions"])))] = draw(SIZES | st.just(2**60 - 1))
    return data, draw(SEEDS)


def of_saved(case: tuple[Any, int]) -> ModelMap:
    return map_from_json(case[0])


def answers_to(
    strategy: st.SearchStrategy[Any], read: Callable[[Any], ModelMap], examples: int, share: int
) -> Counter[str]:
    """What came of reading each example and of every verb with it. The same examples in every run."""
    answers: Counter[str] = Counter()

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(strategy)
    def run(case: Any) -> None:
        try:
            model = read(case)
        except LorascopeError as error:
            assert error.faults
            answers["not read"] += 1
            return
        answers["read"] += 1
        every_verb(model, case[-1], answers, share)

    run()
    assert answers["read"] + answers["not read"] >= examples
    return answers


CASES: dict[str, tuple[Any, Any, tuple[int, int]]] = {
    "headers": (headers(), of_headers, HEADERS),
    "gguf": (gguf_headers(), of_gguf, FILES),
    "saved": (saved_maps(), of_saved, MAPS),
}


def run_all(name: str, place: int) -> None:
    strategy, read, counts = CASES[name]
    answers = answers_to(strategy, read, counts[place], SHARES[place])
    assert answers["read"] > counts[place] * 0.3, answers
    assert count_of(answers, ": done") > counts[place] * 0.2, answers
    assert count_of(answers, ": refused") > counts[place] * 0.05, answers


@pytest.mark.parametrize("name", CASES)
def test_every_verb_stands_any_shape(name: str) -> None:
    run_all(name, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_verb_stands_any_shape_at_length(name: str) -> None:
    run_all(name, 1)


# Some of them by name.


def checkpoint(folder: Path, changed: Shapes, **config: Any) -> Path:
    """A llama of two layers with some shapes of their own."""
    shapes = BASES["llama"] | changed
    tensors: dict[str, tuple[str, Any]] = {name: ("F32", shape) for name, shape in shapes.items()}
    return write_checkpoint(folder, tensors, config={**TINY_LLAMA, "intermediate_size": 16, "vocab_size": 16, **config})


QUERIES = tuple(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2))


def test_flattened_queries_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = inspect(checkpoint(tmp_path / "whole", {}))
    flat = inspect(checkpoint(tmp_path / "flat", dict.fromkeys(QUERIES, (256,))))
    assert flat.dimensions == whole.dimensions
    assert flat.unexplained == QUERIES
    assert flat.notes[0].startswith(
        f"2 tensors have 1 dimension where the module has a matrix or a kernel, such as {QUERIES[0]}"
    )
    assert "flattened (FSDP)" in flat.notes[0]
    assert len(flat.weights) == len(whole.weights) - 2
    assert {module.kind for module in flat.modules if module.name.endswith("q_proj")} == {"other"}
    made = plan(flat, "qv")
    assert str(made.notes[0]).startswith("2 tensors of the checkpoint are unexplained")
    with fails("selects nothing", "2 tensors are unexplained"):
        plan(flat, "attention.q")
    for by in ("role", "layer", "module"):
        assert main(["inspect", str(tmp_path / "flat"), "--by", by]) == 1
    assert main(["inspect", str(tmp_path / "flat"), "--json"]) == 1
    assert "flattened (FSDP)" in capsys.readouterr().out


def test_flattened_matrices_of_a_model_that_nobody_knows(tmp_path: Path) -> None:
    config = {"model_type": "nobodys", "architectures": ["NobodysForCausalLM"]}
    assert inspect(checkpoint(tmp_path / "whole", {}, **config)).unexplained == ()
    flat = inspect(checkpoint(tmp_path / "flat", dict.fromkeys(QUERIES, (256,)), **config))
    assert flat.unexplained == QUERIES
    assert "2 tensors have 1 dimension" in flat.notes[0]


@pytest.mark.parametrize("shape", [(), (0,), (2, 8, 16), (1, 1, 1, 2, 128)], ids=str)
def test_other_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = inspect(checkpoint(tmp_path, {QUERIES[0]: shape}))
    assert model.unexplained == QUERIES[:1]
    answers: Counter[str] = Counter()
    every_verb(model, 0, answers)
    assert count_of(answers, ": done") >= 8


def test_sides_of_no_length(tmp_path: Path) -> None:
    model = inspect(checkpoint(tmp_path, {QUERIES[0]: (16, 0)}))
    assert model.unexplained == ()
    assert model.notes[0] == f"without any numbers, as a side of theirs is 0: {QUERIES[0]}"
    assert plan(model, "attention.q[0]=4").resolution.trainable == 4 * 16


def test_nothing_has_any_numbers() -> None:
    stored = {name: Stored(name, (0, 0), "F32", "", (name,)) for name in BASES["mixtral"]}
    model = map_checkpoint(stored, {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}, model="none")
    assert model.dimensions.parameters == 0
    answers: Counter[str] = Counter()
    for seed in range(3):
        every_verb(model, seed, answers)
    assert count_of(answers, ": done") > 30


def test_one_number_in_a_name_stands_for_no_layers(tmp_path: Path) -> None:
    far = {name.replace(".1.", f".{10**17}."): (16, 16) for name in QUERIES[1:]}
    model = inspect(checkpoint(tmp_path, far, model_type="nobodys", architectures=["N"]))
    assert len(plan(model, "attention.q[0:]").targets) == 3
    assert len(plan(model, "attention.q[-1:]").targets) == 1


# Figures that contradict the tensors.


@pytest.mark.parametrize(
    ("said", "note", "figure", "own"),
    [
        ({"hidden_size": 4096}, "hidden_size 4096; the tensors show 16, which counts here", "hidden_size", 16),
        ({"hidden_size": 17}, "hidden_size 17; the tensors show 16, which counts here", "hidden_size", 16),
        ({"intermediate_size": 11_008}, "intermediate_size 11008; the tensors show 16", "intermediate_size", 16),
        ({"num_attention_heads": 5}, "num_attention_heads 5; the tensors cannot have that", "attention_heads", None),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3; the tensors cannot have that", "key_value_heads", None),
    ],
    ids=str,
)
def test_figures_that_the_tensors_contradict(
    tmp_path: Path, said: dict[str, int], note: str, figure: str, own: int | None
) -> None:
    model = inspect(checkpoint(tmp_path, {}, **said))
    assert model.notes[0].startswith(f"config.json says {note}")
    assert getattr(model.dimensions, figure) == own


def test_layers_and_experts_that_the_tensors_contradict() -> None:
    stored = {name: Stored(name, shape, "F32", "", (name,)) for name, shape in BASES["qwen3_moe"].items()}
    config = {"model_type": "nobodys", "num_hidden_layers": 77, "num_experts": 10**12, "num_experts_per_tok": 999}
    model = map_checkpoint(stored, config, model="")
    assert [note.partition(";")[0] for note in model.notes[:3]] == [
        "config.json says num_hidden_layers 77",
        "config.json says num_experts 1000000000000",
        "config.json says num_experts_per_tok 999",
    ]
    assert (model.dimensions.layers, model.dimensions.experts, model.dimensions.active_experts) == (2, 16, None)


def alarms(model_type: str, head: str) -> list[str]:
    """What is said of shapes and figures of an honest checkpoint, of which the code is known or nothing but names are."""
    model = load_builtin(model_type, head)
    shapes = {f"{module.name}.{name}": shape for module in model.modules for name, shape in module.parameters}
    shapes |= dict(model.root_parameters)
    stored = {name: Stored(name, shape, "BF16", "", (name,)) for name, shape in shapes.items()}
    dimensions = model.dimensions
    said = {
        "hidden_size": dimensions.hidden_size,
        "intermediate_size": dimensions.intermediate_size,
        "num_hidden_layers": dimensions.layers,
        "num_attention_heads": dimensions.attention_heads,
        "num_key_value_heads": dimensions.key_value_heads,
        "num_experts": dimensions.experts,
        "num_experts_per_tok": dimensions.active_experts,
    }
    found: list[str] = []
    for config in (
        {"model_type": model_type, "architectures": [model.architecture]},
        {"model_type": "nobodys", **{name: value for name, value in said.items() if value is not None}},
    ):
        try:
            made = map_checkpoint(stored, checked_config(config, "config.json", typed=False), model="")
        except LorascopeError:
            continue
        marks = ("; the tensors ", "where the module has a matrix", "without any numbers")
        found += [note for note in made.notes if any(mark in note for mark in marks)]
        assert made.dimensions.hidden_size == dimensions.hidden_size or "hidden_size" not in config
    return found


ALL = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]


def test_no_alarm_for_honest_checkpoints() -> None:
    assert [alarms(*one) for one in ALL[::40]] == [[]] * len(ALL[::40])
    assert len(ALL[::40]) == 13


@pytest.mark.slow
def test_no_alarm_for_any_honest_checkpoint() -> None:
    assert len(ALL) == 507
    assert {one: said for one in ALL if (said := alarms(*one))} == {}
