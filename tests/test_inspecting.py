"""Sources: what each kind gives, and what is no source says so before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import architectures
import huggingface_hub
import pytest
import transformers

import lorascope as ls
from lorascope.inspecting import inspect
from lorascope.sources.builtin import PREFERRED, builtin_models
from lorascope.sources.files import hub_requests
from lorascope.sources.transformers import config
from lorascope.sources.transformers.config import configuration
from tests.helpers.samples import TINY_LLAMA, fails, sample


def folder(path: Path, **fields: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(TINY_LLAMA | fields), encoding="utf-8")
    return path


# Sources that work.


def test_every_form_of_a_source_gives_the_same_weights(tmp_path: Path) -> None:
    made = folder(tmp_path / "model")
    config = transformers.LlamaConfig(**{key: value for key, value in TINY_LLAMA.items() if key != "model_type"})
    module = transformers.LlamaForCausalLM(config)
    maps = [inspect(source) for source in (made, str(made), made / "config.json", config, module)]
    assert all(found.weights == maps[0].weights and found.modules == maps[0].modules for found in maps)
    assert [found.source for found in maps] == ["config"] * 4 + ["module"]
    assert maps[0].dimensions == maps[4].dimensions
    assert inspect(maps[0]) is maps[0]
    assert len(maps[0].weights) == 2 * 7 + 2


def test_a_model_type_is_the_built_in_models() -> None:
    assert inspect("llama") == sample("llama")
    assert inspect("llama").source == "built-in"


def test_the_built_in_models_prefers_what_is_released() -> None:
    assert builtin_models()["llava"][0] == "image-text-to-text"
    assert inspect("bert").head == "masked-lm"
    assert inspect("bert", head="sequence-classification").architecture == "BertForSequenceClassification"
    for name, heads in builtin_models().items():
        assert list(heads) == [head for head in PREFERRED if head in heads], name


@pytest.mark.parametrize("content", [{}, {"readme.txt": "mine"}], ids=["empty", "other"])
def test_a_folder_without_a_model_does_not_hide_a_model_type(
    content: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    for name, text in content.items():
        (tmp_path / "llama" / name).write_text(text, encoding="utf-8")
    assert inspect("llama") == sample("llama")
    with fails("llama: the folder has no config.json", "; it has " + (", ".join(content) or "nothing")):
        inspect(tmp_path / "llama")


def test_a_folder_with_a_model_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "llama")
    assert inspect("llama").dimensions.layers == 2
    assert configuration("llama").num_hidden_layers == 2


def test_heads_of_a_configuration(tmp_path: Path) -> None:
    made = folder(tmp_path / "model")
    assert inspect(made, head="sequence-classification").architecture == "LlamaForSequenceClassification"
    assert inspect(folder(tmp_path / "base", architectures=["LlamaModel"])).head == "unknown"
    assert inspect(folder(tmp_path / "none", architectures=None)).architecture == "LlamaForCausalLM"
    with fails('model type "llama" has no head masked-lm; its heads are: causal-lm', "--head"):
        inspect(made, head="masked-lm")


def test_figures_that_a_configuration_leaves_to_the_code() -> None:
    assert inspect("gpt2").dimensions.intermediate_size == 3072
    tiny = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16, architectures=["GPT2LMHeadModel"])
    assert inspect(tiny).dimensions.intermediate_size == 32


# Sources that do not.


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", ["cannot inspect ''", "mistral"]),
        ("  ", ["cannot inspect '  '"]),
        ("x" * 5000, ["cannot inspect"]),
        ("x" * 300, ["cannot inspect"]),
        ("a\0b", ["cannot inspect"]),
        (5, ["cannot inspect an int", "Give a name, a path, a configuration or a module"]),
        (None, ["cannot inspect a NoneType"]),
        ("lama", ['"lama" is not a built-in model (339 types)', 'Did you mean "llama"']),
        ("LLAMA", ['Did you mean "llama"']),
        ("qwen3-moe", ['Did you mean "qwen3_moe"']),
        ("zzzzzz", ["Give a model type such as llama, a folder, a config.json or a Hub id"]),
        ("../nowhere", ["'../nowhere': no model type, file, folder or Hub id of this name", "--list"]),
        ("/no/such/folder", ["no model type"]),
        ("a/b/c", ["no model type"]),
        ("nowhere/config.json", ["'nowhere/config.json': no model type, file"]),
        ("config.json", ['"config.json" is not a built-in model']),
        ("/dev/null", ["/dev/null: has no configuration to build a model from", "Hub id"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_source(source: Any, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with fails(*said):
        inspect(source)


@pytest.mark.parametrize("head", ["foot", "causal_lm", "CAUSAL_LM", "unknown"])
def test_an_unknown_head(head: str) -> None:
    with fails(f"unknown head {head!r}", "The heads are image-text-to-text, seq2seq-lm"):
        inspect("llama", head=head)


def test_a_head_that_the_built_in_models_has_not() -> None:
    with fails(
        'the built-in models have "llama" with causal-lm, sequence-classification, not with the head "masked-lm"',
        "--head",
    ):
        inspect("llama", head="masked-lm")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", ["is [], not an object", "Is this a model's config.json?"]),
        ("null", ["is None, not an object"]),
        ("{", ["is not JSON"]),
        ("", ["is not JSON"]),
        ("[" * 100_000, ["is nested deeper than 100 levels"]),
        ("{}", ["model_type is None, not a text"]),
        ('{"model_type": 5}', ["model_type is 5, not a text"]),
        ('{"model_type": ["llama"]}', ["model_type is ['llama'], not a text"]),
        ('{"model_type": ""}', ["model_type is '', not a text"]),
        (
            '{"model_type": "a\\nb", "architectures": ["x y"]}',
            ["2 faults", "model_type is 'a\\nb'", "architectures is ['x y']"],
        ),
        ('{"model_type": "lama"}', ['model_type "lama" is none that transformers', 'Did you mean "llama"', "newer"]),
        ('{"model_type": "llama", "hidden_size": NaN}', ["holds NaN"]),
        ('{"model_type": "llama", "model_type": "bert"}', ["has the key 'model_type' twice in one object"]),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_a_broken_config_file(content: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    for source in (tmp_path, tmp_path / "config.json"):
        with fails(str(tmp_path / "config.json"), *said, "→"):
            inspect(source)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not a number from 0 to 2000"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a number from 0 to 2000"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers is 1000000000000000000000000000000"),
        ({"num_hidden_layers": [1]}, "num_hidden_layers"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers"),
        ({"layer_types": ["full_attention"] * 3000}, "layer_types has 3000 entries, more than 2000"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "attention_types is 1000000000"),
        ({"model_type": "llava", "vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000"),
        ({"model_type": "llava", "text_config": {"a": [{"depth": 10**9}]}}, "depth is 1000000000"),
        ({"model_type": "swin", "depths": [2, 10**9]}, "depths is 1000000000"),
        (
            {"model_type": "jetmoe", "num_local_experts": 10**12},
            "num_local_experts is 1000000000000, more than 1000000",
        ),
        (
            {"model_type": "jetmoe", "num_hidden_layers": 1500, "num_local_experts": 1500},
            "1500 layers of 1500 experts are more than 1000000 experts in all",
        ),
        ({"num_labels": 10**9}, "num_labels is 1000000000, more than 1000000"),
        ({"num_attention_heads": 10**9}, "num_attention_heads is 1000000000"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_size": "big"}, "Field 'hidden_size' expected int, got str (value: 'big')"),
        ({"hidden_size": None}, "Field 'hidden_size' expected int, got NoneType"),
        ({"hidden_size": 10**18}, "hidden_size is 1000000000000000000, more than 4,000,000"),
        ({"hidden_size": -16}, "negative dimension -16"),
        ({"architectures": [5]}, "architectures is [5], not a list of class names"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM', not a list of class names"),
        ({"architectures": 7}, "architectures is 7, not a list"),
        ({"architectures": ["os"]}, 'has no model class "os"'),
        ({"architectures": ["AutoModel"]}, 'has no model class "AutoModel"'),
        ({"architectures": ["PreTrainedModel"]}, 'has no model class "PreTrainedModel"'),
        ({"architectures": ["BertForMaskedLM"]}, "transformers cannot build BertForMaskedLM"),
        ({"torch_dtype": "nope"}, "the configuration cannot be read"),
        ({"id2label": 5}, "the configuration cannot be read"),
        ({"model_type": "llava", "text_config": 5}, "text_config"),
        ({"model_type": "llava", "text_config": {"model_type": "nonsense"}}, "nonsense"),
        ({"layer_types": ["sideways"] * 2, "model_type": "qwen3"}, "layer_types"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_a_hostile_configuration(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with fails(said, "→") as caught:
        inspect(folder(tmp_path / "model", **fields))
    assert len(str(caught.value)) < 1000


def test_all_faults_of_a_configuration_at_once(tmp_path: Path) -> None:
    with fails("config.json: 3 faults", "num_hidden_layers is -1", "num_labels is 2000000", "architectures is 7"):
        inspect(folder(tmp_path, num_hidden_layers=-1, num_labels=2_000_000, architectures=7))


@pytest.mark.slow
def test_every_real_configuration_passes_the_caps() -> None:
    tried = 0
    for entry in [*architectures.entries(), *architectures.layouts()]:
        assert list(config._count_faults(entry.config().to_dict())) == [], entry
        tried += 1
    assert tried == 397


# Code that comes with a model.


def test_foreign_code_is_not_run_unasked(tmp_path: Path) -> None:
    made = folder(tmp_path / "model", model_type="mine", auto_map={"AutoConfig": "code.Mine"})
    (made / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with fails(
        'model_type "mine" needs code that comes with the model (auto_map), which is not run', "--trust-remote-code"
    ):
        inspect(made)
    assert not (tmp_path / "ran").exists()


def test_foreign_code_is_not_run_where_transformers_has_its_own(tmp_path: Path) -> None:
    made = folder(tmp_path / "model", auto_map={"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Mine"})
    (made / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    assert inspect(made).architecture == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_trusted_code_that_fails_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    made = folder(tmp_path / "model", model_type="mine", auto_map={"AutoConfig": "code.Mine"})
    with fails("the configuration cannot be read"):
        inspect(made, trust_remote_code=True)


# The Hub without a network.


def closed_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@pytest.mark.parametrize("head", ["", "causal-lm"])
def test_no_network_is_told_quickly(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with fails(f"someone/none: {endpoint.removeprefix('http://')} cannot be reached", "the network"):
        inspect("someone/none", head=head)


def test_offline_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_requests.Connection, "facts", lambda self: pytest.fail("it was asked"))
    for read in ("auto", "headers", "config"):
        with fails("someone/none", "HF_HUB_OFFLINE is set, and it is not in the cache"):
            inspect("someone/none", read=read)


def test_names_are_public() -> None:
    assert ls.inspect is inspect
