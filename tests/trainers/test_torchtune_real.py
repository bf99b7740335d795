"""What is said of torchtune beside torchtune itself, in an environment of its own, on the meta device."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorascope import inspect, plan
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.torchtune.builders import BUILDERS, Builder, builders_for, torchtune_part
from lorascope.trainers.torchtune.schema import DEFAULTS
from lorascope.trainers.torchtune.trainer import TORCHTUNE
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

# What torchtune needs to be imported; its own requirements ask for more, and for a torchao of its time.
CHECKPOINTS = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {}),
    "gemma": ("GemmaForCausalLM", {"head_dim": 256}),
    "gemma2": ("Gemma2ForCausalLM", {}),
    "phi3": ("Phi3ForCausalLM", {"pad_token_id": 0}),
    "qwen2": ("Qwen2ForCausalLM", {}),
}
RULES = (("attention=8",), ("attention.q,v=16",), ("attention.o=2",), ("attention,ffn=4",), ("attention,ffn,head=4",))
OPTIONS: tuple[dict[str, Any], ...] = ({"dropout": 0.1}, {"dora": True, "dropout": 0.0}, {"rslora": True, "alpha": 24})
# As users write them, for Llama 2 7B: what becomes of each is compared.
WRITTEN: dict[str, dict[str, Any]] = {
    "defaults": {"lora_attn_modules": ["q_proj"]},
    "hugging face's name": {"lora_attn_modules": ["q_proj", "o_proj"]},
    "only that": {"lora_attn_modules": ["o_proj"]},
    "empty": {"lora_attn_modules": []},
    "empty with the mlp": {"lora_attn_modules": [], "apply_lora_to_mlp": True},
    "unknown": {"lora_attn_modules": ["q_proj"], "lora_ranks": 4},
    "everything": {
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "apply_lora_to_output": True,
        "lora_rank": 3,
        "lora_alpha": 7.5,
        "lora_dropout": 0.25,
        "use_dora": True,
    },
    "quantized": {"lora_attn_modules": ["v_proj"], "quantize_base": False},
}
TIED = {"lora_attn_modules": ["q_proj"], "apply_lora_to_output": True}


def map_of(builder: Builder, tmp: Path) -> ModelMap:
    """The map of a model of transformers of a function's sizes."""
    sizes = builder.sizes
    architecture, more = CHECKPOINTS[builder.model_type]
    # As many heads as make whole widths: how many there are changes no weight.
    head = more.get("head_dim", 64)
    config = {
        "model_type": builder.model_type,
        "architectures": [architecture],
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.queries // head,
        "num_key_value_heads": sizes.keys // head,
        "head_dim": head,
        "vocab_size": sizes.vocabulary,
        "tie_word_embeddings": not builder.head,
        **more,
    }
    folder = tmp / builder.path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return inspect(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, ModelMap]]:
    """What torchtune did, the files that it was given with what they should do, and the maps."""
    folder = tmp_path_factory.mktemp("torchtune")
    files: dict[str, Any] = {}
    maps: dict[str, ModelMap] = {}
    for number, builder in enumerate(BUILDERS):
        model = maps[builder.path] = map_of(builder, folder / "models")
        if builders_for(model)[0] != builder:
            continue
        for rules, options in itertools.product(RULES, OPTIONS):
            made = plan(model, *rules, **options)
            try:
                text = export(made, "torchtune", base=str(folder))
            except LorascopeError:
                continue
            name = f"{number}-{len(files)}.yaml"
            (folder / name).write_text(text, encoding="utf-8")
            files[name] = made
    for number, arguments in enumerate([*WRITTEN.values(), TIED]):
        component = "llama2.lora_llama2_7b" if arguments is not TIED else "llama3_2.lora_llama3_2_1b"
        model = {"_component_": f"torchtune.models.{component}", **arguments}
        (folder / f"user-{number}.yaml").write_text(yaml.safe_dump({"model": model}), encoding="utf-8")
    python = environment("torchtune")
    run_in(python, [str(HELPERS / "trainers" / "torchtune_itself.py"), str(folder), str(folder / "out.json")], folder)
    return json.loads((folder / "out.json").read_text(encoding="utf-8")), files, maps


def under_its_names(model: ModelMap, adapted: list[str]) -> set[str]:
    """torchtune's module names of weights of a map."""
    found = set()
    for name in adapted:
        weight = model.weight_by_name[name]
        for part in torchtune_part(weight):
            place = "attn" if part.endswith("_proj") else "mlp"
            found.add(part if part == "output" else f"layers.{weight.layer}.{place}.{part}")
    return found


def test_written_files_do_what_the_plans_say(work: tuple[dict[str, Any], dict[str, Any], dict[str, ModelMap]]) -> None:
    done, files, _ = work
    for name, made in files.items():
        did = done["files"][name]
        assert "error" not in did, (name, did)
        assert did["trainable"] == made.resolution.trainable
        first = made.resolution.adapted[0]
        assert did["adapted"].keys() == under_its_names(made.model, [one.name for one in made.resolution.adapted])
        for rank, scale, dropout, kind in did["adapted"].values():
            assert rank == first.rank
            assert math.isclose(scale, first.scale, rel_tol=1e-9)
            assert dropout == made.config.lora_dropout
            assert kind == ("DoRALinear" if made.config.use_dora else "LoRALinear")
    assert len(files) == 329


def test_files_of_users_do_what_is_said(work: tuple[dict[str, Any], dict[str, Any], dict[str, ModelMap]]) -> None:
    done, _, maps = work
    trainer = TORCHTUNE
    stopped = 0
    for number, arguments in enumerate([*WRITTEN.values(), TIED]):
        component = "llama2.lora_llama2_7b" if arguments is not TIED else "llama3_2.lora_llama3_2_1b"
        text = yaml.safe_dump({"model": {"_component_": f"torchtune.models.{component}", **arguments}})
        said = trainer.resolve(maps[component], trainer.read(text, "file")).resolution
        did = done["files"][f"user-{number}.yaml"]
        if said.refusal is not None:
            stopped += 1
            # Without a single adapter torchtune builds the model all the same.
            assert "error" in did or (said.refused_as("no-match") and did["adapted"] == {}), (arguments, did)
            continue
        assert did.get("trainable") == said.trainable, did
        assert did["adapted"].keys() == under_its_names(maps[component], [one.name for one in said.adapted])
    assert stopped == 5


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.path)
def test_functions_build_what_is_said(
    builder: Builder, work: tuple[dict[str, Any], dict[str, Any], dict[str, ModelMap]]
) -> None:
    built = work[0]["builders"][builder.path]
    sizes = builder.sizes
    assert (built["layers"], built["vocabulary"]) == (sizes.layers, sizes.vocabulary)
    assert {name: tuple(shape) for name, shape in built["layer"].items()} == {
        "attn.q_proj.weight": (sizes.queries, sizes.hidden),
        "attn.k_proj.weight": (sizes.keys, sizes.hidden),
        "attn.v_proj.weight": (sizes.keys, sizes.hidden),
        "attn.output_proj.weight": (sizes.hidden, sizes.queries),
        "mlp.w1.weight": (sizes.inner, sizes.hidden),
        "mlp.w2.weight": (sizes.hidden, sizes.inner),
        "mlp.w3.weight": (sizes.inner, sizes.hidden),
    }
    assert built["head"] == builder.head
    assert ("use_dora" in built["defaults"]) == builder.dora
    given = {key: value for key, value in built["defaults"].items() if key in DEFAULTS}
    assert given == {key: DEFAULTS[key] for key in given}
    assert {"lora_rank", "lora_alpha", "lora_dropout", "apply_lora_to_mlp"} <= given.keys()


def test_sizes_are_found_in_maps_of_transformers(
    work: tuple[dict[str, Any], dict[str, Any], dict[str, ModelMap]],
) -> None:
    for builder in BUILDERS:
        same = [one for one in BUILDERS if dataclasses.replace(builder, path=one.path) == one or one == builder]
        assert builder in builders_for(work[2][builder.path])
        assert len(builders_for(work[2][builder.path])) >= len(same)


def test_the_list_of_keys(tmp_path: Path) -> None:
    python = environment("torchtune")
    said = run_in(
        python, [str(ROOT / "tools/trainer_keys/torchtune.py")], tmp_path, {"PYTHONPATH": f"{ROOT}/tools:{ROOT}/src"}
    )
    # torchao says on stdout what it misses.
    lines = [line for line in said.splitlines() if not line.startswith("import error")]
    assert lines[0] == "# torchtune 0.6.1"
    assert set(lines[1:]) == known_keys("torchtune")
    assert len(lines) == 579
