"""What servers take of adapters: against what vLLM's own code did with saved ones, and a table of expectations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.errors import LorascopeError
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.plans.verify import adapter_config, verify
from lorascope.servers.check import serve
from lorascope.servers.facts import server_facts
from lorascope.servers.types import Serving
from lorascope.servers.vllm_names import Place, vllm_places
from lorascope.sources.builtin import load_builtin
from tests.helpers.paths import DATA
from tests.helpers.serving_cases import LOADS

# What vLLM 0.33.0 did with the adapters of `serving_cases`, written by `record_vllm.py --loads`.
RECORDED: dict[str, dict[str, Any]] = json.loads((DATA / "vllm_loads.json").read_text("utf-8"))
RAN = sorted(name for name, row in RECORDED.items() if "skipped" not in row)
# The same of an adapter on all linear layers, for each recorded architecture, written by `--all-linear`.
EVERYWHERE: dict[str, dict[str, Any]] = json.loads((DATA / "vllm_all_linear.json").read_text("utf-8"))
# Models cut to two layers, none of which is one of full attention.
CUT = {
    "causal-lm/qwen3_5",
    "causal-lm/qwen3_5_moe",
    "image-text-to-text/qwen3_5",
    "image-text-to-text/qwen3_5_moe",
}
# Its router is a linear layer in the transformers that vLLM ran with, and none in the one that the built-in models was made with.
OTHER_CLASS = {"causal-lm/jamba"}
NO_ADAPTERS = sorted(name for name, row in RECORDED.items() if "LoRA is not supported" in row.get("skipped", ""))
# Loaded as it was recorded, and never called: the weight is split at load (see `test_vllm_never_calls_...`).
NEVER_CALLED = {"deepseek-v3-kvb"}
# Refused as it was recorded, and loaded with a flag that nobody could try.
WITH_A_FLAG = {"deepseek-v3-experts", "qwen3-moe-experts"}


def asked(key: str, keywords: dict[str, Any], server: str = "vllm", extras: dict[str, Any] | None = None) -> Serving:
    model = builtin_models(key)
    config = adapter_config(keywords)
    return serve(model, config, verify(model, config), server, extras=extras or {})


def builtin_models(key: str) -> ls.ModelMap:
    head, _, model_type = key.rpartition("/")
    return load_builtin(model_type, head)


def places_of(key: str, keywords: dict[str, Any]) -> tuple[Place, ...]:
    model, config = builtin_models(key), adapter_config(keywords)
    tensors = saved_tensors(model, config, verify(model, config)).tensors
    return vllm_places(tensors, server_facts("vllm").modules[model.architecture])


def test_the_recording_is_of_every_case() -> None:
    assert RECORDED.keys() == LOADS.keys()
    assert (len(RAN), len(NO_ADAPTERS)) == (58, 6)
    assert set(RECORDED) - {*RAN, *NO_ADAPTERS} == {"mamba2"}  # PEFT refuses its out_proj


@pytest.mark.parametrize("name", RAN)
def test_the_answer_is_what_vllms_own_code_did(name: str) -> None:
    key, keywords, extras, towers = LOADS[name]
    said, row = asked(key, keywords, extras=extras), RECORDED[name]
    flag = "--enable-tower-connector-lora"
    if name in NEVER_CALLED:
        assert not row["dropped"]
        assert said.answer == "no"
    elif name in WITH_A_FLAG:
        assert "--enable-mixed-moe-lora-format" in row["refused"]
        assert (said.answer, said.flags[-1]) == ("depends", "--enable-mixed-moe-lora-format")
    elif "refused" in row:
        assert (said.answer, said.flags) == ("no", ())
    elif row["dropped"] and flag in said.flags:
        assert not towers
        assert said.answer == "yes"
    elif row["dropped"]:
        assert said.answer == "no"
    else:
        assert said.answer == "yes"
        assert towers == (flag in said.flags)


def test_every_weight_is_where_vllms_own_code_put_it() -> None:
    compared = 0
    for name in RAN:
        key, keywords, _, towers = LOADS[name]
        row = RECORDED[name]
        if "refused" in row:
            continue
        served = {"taken", "fused", *(["tower"] if towers else [])}
        left = {"dropped", *([] if towers else ["tower"])}
        places = places_of(key, keywords)
        assert {place.fate for place in places} <= served | left, name
        assert sorted({place.place for place in places if place.fate in served}) == row["taken"], name
        assert sorted({place.place for place in places if place.fate in left}) == row["dropped"], name
        compared += 1
    assert compared == 46


def test_all_linear_layers_of_every_recorded_architecture() -> None:
    exact = apart = cut = 0
    for key, row in EVERYWHERE.items():
        if "skipped" in row or key in OTHER_CLASS:
            continue
        places = places_of(key, {"target_modules": "all-linear", "r": 8, "lora_alpha": 16})
        taken = {place.place for place in places if place.fate in {"taken", "tower", "fused"}}
        dropped = {place.place for place in places if place.fate == "dropped"}
        fates = {place.fate for place in places}
        if "refused" in row and "apart" in fates and "refused" not in fates:
            assert "--enable-mixed-moe-lora-format" in row["refused"], key
            apart += 1
        elif "refused" in row:
            assert "refused" in fates, key
            exact += 1
        elif key in CUT:
            assert set(row["taken"]) < taken, key
            assert dropped == set(row["dropped"]), key
            assert all(".self_attn." in place for place in taken - set(row["taken"])), key
            cut += 1
        else:
            assert (taken, dropped) == (set(row["taken"]), set(row["dropped"])), key
            assert "refused" not in fates, key
            exact += 1
    assert (exact, apart, cut) == (73, 9, 4)


@pytest.mark.parametrize("name", NO_ADAPTERS)
def test_a_model_without_adapters(name: str) -> None:
    key, keywords, extras, _ = LOADS[name]
    said = asked(key, keywords, extras=extras)
    assert said.answer == "no"
    assert any(one.question == "model" and "takes no adapters" in one.reason for one in said.answers)


QV = {"target_modules": ["q_proj", "v_proj"], "r": 8, "lora_alpha": 16}
EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
# (model, configuration, other keys, server): the answer, and what is said or done.
TABLE: list[tuple[str, dict[str, Any], dict[str, Any], str, str, str]] = [
    ("llama", {**QV, "r": 1}, {}, "vllm", "yes", "--max-lora-rank 1"),
    ("llama", {**QV, "r": 1}, {}, "vllm==0.11.0", "yes", "--max-lora-rank 8"),
    ("llama", {**QV, "r": 300}, {}, "vllm", "yes", "--max-lora-rank 320"),
    ("llama", {**QV, "rank_pattern": {"q_proj": 65}}, {}, "vllm", "yes", "--max-lora-rank 128"),
    ("llama", {**QV, "rank_pattern": {"q_proj": 4}}, {}, "vllm==0.31.0", "no", "ignores both patterns"),
    ("llama", {**QV, "rank_pattern": {"q_proj": 4}}, {}, "vllm==0.32.0", "yes", "as PEFT reads"),
    ("llama", {**QV, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 8}}, {}, "vllm==0.20.2", "depends", "were not tried"),
    ("llama", {**QV, "use_dora": True}, {}, "vllm==0.8.0", "no", "DoRA"),
    ("llama", {**QV, "bias": "all"}, {}, "vllm==0.10.2", "depends", "--enable-lora-bias"),
    ("llama", {**QV, "lora_bias": True}, {}, "vllm==0.12.0", "no", "lora_bias"),
    ("llama", QV, {"init_lora_weights": "pissa_niter_4"}, "vllm", "no", "init_lora_weights"),
    ("llama", QV, {"init_lora_weights": "olora"}, "vllm==0.20.2", "no", "ignores init_lora_weights"),
    ("llama", QV, {"init_lora_weights": True}, "vllm", "yes", "no option"),
    ("llama", QV, {"use_qalora": True}, "vllm", "no", "QALoRA"),
    ("llama", QV, {"alora_invocation_tokens": [1, 2]}, "vllm==0.30.0", "depends", "alora_invocation_tokens"),
    ("llama", QV, {"trainable_token_indices": [5]}, "vllm", "no", "trainable_token_indices"),
    ("sequence-classification/qwen3", {**QV, "task_type": "SEQ_CLS"}, {}, "vllm==0.30.0", "no", "modules_to_save"),
    ("sequence-classification/llama", {**QV, "task_type": "SEQ_CLS"}, {}, "vllm", "depends", "classifier"),
    ("qwen2", QV, {}, "vllm==0.20.2", "yes", "declares the class alike"),
    ("qwen2", QV, {}, "vllm==0.28.0", "yes", "declares the class alike"),
    ("mistral", QV, {}, "vllm==0.20.2", "yes", "declares the class alike"),
    ("qwen3_moe", {"target_modules": ["q_proj", "gate"]}, {}, "vllm==0.28.0", "depends", "was not tried with 0.28.0"),
    ("qwen2", QV, {}, "vllm==0.28.5", "depends", "0.28.5 is not recorded"),
    ("qwen2", QV, {}, "vllm==1.0", "depends", "1.0 is not recorded"),
    ("gpt_oss", EXPERTS, {}, "vllm==0.20.2", "depends", "not tried with 0.20.2"),
    ("qwen3_moe", EXPERTS, {}, "vllm==0.20.2", "depends", "0.22.1 has a flag"),
    ("qwen2_vl", {"target_modules": "all-linear"}, {}, "vllm==0.13.0", "no", "before 0.14.1"),
    ("llava", {"target_modules": "all-linear"}, {}, "vllm", "no", "silently leaves it out"),
    ("t5", {"target_modules": ["q", "v"]}, {}, "vllm", "depends", "not in its registry"),
    ("llama", {"target_modules": ["nope"]}, {}, "vllm", "no", "there is no adapter"),
    ("llama", QV, {}, "sglang", "yes", "--lora-target-modules q_proj v_proj"),
    ("llama", {"target_modules": "all-linear"}, {}, "sglang", "yes", "--max-lora-rank 8"),
    ("llama", QV, {}, "sglang==0.4.6.post5", "yes", "--lora-paths"),
    ("llama", {**QV, "rank_pattern": {"q_proj": 4}}, {}, "sglang", "no", "every weight must have rank"),
    ("llama", {**QV, "alpha_pattern": {"q_proj": 4}}, {}, "sglang", "no", "alpha_pattern"),
    ("llama", {**QV, "use_rslora": True}, {}, "sglang", "no", "use_rslora"),
    ("llama", {**QV, "use_dora": True}, {}, "sglang", "no", "refuses use_dora"),
    ("llama", {**QV, "use_dora": True}, {}, "sglang==0.5.9", "no", "without the magnitudes"),
    ("llama", {**QV, "bias": "lora_only"}, {}, "sglang", "no", "biases"),
    ("llama", {**QV, "modules_to_save": ["lm_head"]}, {}, "sglang", "no", "modules_to_save"),
    ("llama", {**QV, "target_modules": ["k_proj"]}, {}, "sglang", "no", "joins q_proj"),
    ("llama", {**QV, "target_modules": ["q_proj", "k_proj"]}, {}, "sglang", "no", "joins q_proj"),
    ("llama", {**QV, "target_modules": r".*\.(q_proj|v_proj)"}, {}, "sglang", "no", "list of names"),
    ("llama", QV, {"init_lora_weights": "pissa"}, "sglang", "no", "ignores init_lora_weights"),
    ("llama", QV, {"init_lora_weights": "eva"}, "sglang", "yes", "no option"),
    ("llama", {**QV, "target_modules": ["embed_tokens"]}, {}, "sglang", "depends", "was not read"),
    ("llama", {**QV, "target_modules": ["embed_tokens"]}, {}, "sglang==0.5.5.post3", "no", "size of"),
    ("mistral", QV, {}, "sglang", "depends", "was not read"),
    ("mixtral", EXPERTS, {}, "sglang", "no", "names that PEFT gives to adapters of experts"),
    ("mixtral", QV, {}, "sglang", "depends", "was not read"),
    ("qwen2_vl", {"target_modules": ["qkv", "q_proj", "v_proj"]}, {}, "sglang", "no", "language model only"),
    ("gemma2", {"target_modules": ["q_proj", "v_proj"]}, {}, "sglang", "yes", "knows the layers"),
    ("gpt_neox", {"target_modules": ["query_key_value"]}, {}, "sglang", "depends", "size of"),
    ("gemma2", {"target_modules": ["q_proj", "v_proj", "lm_head"]}, {}, "sglang==0.5.5.post3", "no", "size of"),
    ("deepseek_v3", {"target_modules": ["kv_b_proj", "o_proj"]}, {}, "vllm", "no", "splits"),
    ("deepseek_v2", {"target_modules": ["kv_b_proj", "o_proj"]}, {}, "vllm==0.20.2", "no", "splits"),
    ("minicpm3", {"target_modules": ["kv_b_proj", "o_proj"]}, {}, "vllm", "yes", "has a place"),
    ("deepseek_v3", {"target_modules": ["kv_b_proj", "o_proj"]}, {}, "sglang==0.5.11", "no", "size of"),
    ("deepseek_v3", {"target_modules": ["kv_b_proj", "o_proj"]}, {}, "sglang", "depends", "was not read"),
    ("qwen3_next", {"target_modules": ["in_proj_qkvz"]}, {}, "sglang==0.5.7", "no", "size of"),
    ("qwen3_next", {"target_modules": ["in_proj_qkvz"]}, {}, "sglang", "no", "size of"),
    ("llama", {"target_modules": ["self_attn.q_proj", "self_attn.v_proj"]}, {}, "sglang==0.5.2", "no", "last names"),
    ("llama", {"target_modules": ["self_attn.q_proj", "self_attn.v_proj"]}, {}, "sglang==0.5.3", "yes", "knows"),
    ("llama", {"target_modules": ["q_proj", "lm_head"]}, {}, "vllm==0.11.2", "no", "lm_head.base_layer.weight"),
    ("llama", {"target_modules": ["q_proj", "lm_head"]}, {}, "vllm==0.12.0", "yes", "has a place"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "keywords", "extras", "server", "answer", "said"), TABLE)
def test_the_table(
    key: str, keywords: dict[str, Any], extras: dict[str, Any], server: str, answer: str, said: str
) -> None:
    serving = asked(key, keywords, server, extras)
    text = "\n".join([*serving.flags, *(one.reason for one in serving.answers)])
    assert serving.answer == answer, text
    assert said in text
    assert serving.answer == serving.answers[0].answer
    assert all(one.reason and one.source for one in serving.answers)
    assert bool(serving.flags) == (answer != "no")


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 50


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("tgi", "unknown server"),
        ("", "unknown server"),
        ("vllm==", "unknown server"),
        ("vllm==main", "unknown server"),
        ("vllm==9" + "9" * 5000, "unknown server"),
        ("vllm==0.7.3", "Use vLLM 0.8.0 to 0.33.0"),
        ("sglang==0.3", "Use SGLang 0.4.6.post5 to 0.5.23"),
    ],
)
def test_an_unknown_server(server: str, message: str) -> None:
    with pytest.raises(LorascopeError, match=message):
        server_facts(server)


def test_every_recorded_release_can_be_asked_for() -> None:
    data = Path(ls.__file__).parent / "data" / "servers"
    asked_for = 0
    for server in ("vllm", "sglang"):
        for release in json.loads((data / f"{server}.json").read_text("utf-8"))["releases"]:
            said = asked("llama", QV, f"{server}=={release}")
            assert (said.release, said.answer) in {(release, "yes"), (release, "depends")}
            asked_for += 1
    assert asked_for == 61


def test_a_long_name_takes_no_time() -> None:
    row = server_facts("vllm").modules["Olmo2ForCausalLM"]
    name = "base_model.model.model.layers." + "a." * 300 + "b.lora_A.weight"
    (place,) = vllm_places([name], row)
    assert place.fate == "refused"
    (head,) = vllm_places(["base_model.model.model.layers.y.lm_head.z.lora_A.weight"], row)
    assert head.place == "lm_head.z"


@pytest.mark.parametrize("alpha", [-16, 0, 1e300])
@pytest.mark.parametrize("server", ["vllm", "vllm==0.20.2", "sglang"])
def test_a_strange_alpha(alpha: int, server: str) -> None:
    assert asked("llama", {**QV, "lora_alpha": alpha}, server).answer in {"yes", "no"}


def test_a_check_says_what_a_server_does_not_take() -> None:
    found = ls.check(ls.inspect("llama"), {**QV, "init_lora_weights": "pissa"}, serve="vllm")
    assert found.serving is not None
    assert [finding.code for finding in found.findings if finding.severity == "error"] == ["not-servable"]
    assert found.matters
    assert ls.check(ls.inspect("llama"), {**QV, "task_type": "CAUSAL_LM"}, serve="vllm").findings == ()
    assert ls.check(ls.inspect("llama"), QV).serving is None


def test_a_check_refuses_an_unknown_server_before_it_reads() -> None:
    with pytest.raises(LorascopeError, match="unknown server"):
        ls.check(ls.inspect("llama"), "there-is-no-such-folder/", serve="tgi")


def test_a_trainers_configuration(tmp_path: Path) -> None:
    """What else the trainer writes into its adapter_config.json is not known; one without PEFT writes none."""
    axolotl = tmp_path / "axolotl.yaml"
    axolotl.write_text(
        "base_model: x\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\n"
    )
    found = ls.check(ls.inspect("llama"), axolotl, trainer="axolotl", serve="vllm")
    assert found.serving is not None
    assert (found.serving.answer, found.serving.answers[0].question) == ("depends", "options")
    assert found.serving.flags == ("--enable-lora", "--max-lora-rank 8")
    mlx = tmp_path / "mlx.yaml"
    mlx.write_text("model: x\nfine_tune_type: lora\nlora_parameters: {rank: 8, dropout: 0.0, scale: 20.0}\n")
    with pytest.raises(LorascopeError, match="writes no adapter of PEFT"):
        ls.check(ls.inspect("llama"), mlx, trainer="mlx-lm", serve="vllm")


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama", "--serve", "vllm"]) == 0
    assert "vLLM 0.33.0 supports the adapter\nstart it with: --enable-lora --max-lora-rank 8" in capsys.readouterr().out
    assert main(["plan", "llama", "--dora", "--serve", "vllm", "--json"]) == 1
    serving = json.loads(capsys.readouterr().out)["serving"]
    assert (serving["answer"], serving["flags"]) == ("no", [])
    assert {"question", "answer", "reason", "source"} == set(serving["answers"][0])
    assert main(["plan", "llama", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["serving"] is None
    assert main(["check", "llama", "q_proj", "v_proj", "--serve", "sglang"]) == 0
    assert "SGLang 0.5.23 supports the adapter" in capsys.readouterr().out
    assert main(["check", "llama", "k_proj", "--serve", "sglang==0.5.9", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["serving"]["release"] == "0.5.9"
    assert "not-servable" in {finding["code"] for finding in said["findings"]}
    assert main(["plan", "llama", "--serve", "tgi"]) == 2
    assert "unknown server" in capsys.readouterr().err
