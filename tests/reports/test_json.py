"""The shape that `--json` promises: keys, types, and that the numbers add up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.peft_rules.diagnostics import Reason
from lorascope.plans import notes

DIMENSIONS = (
    *("hidden_size", "intermediate_size", "layers", "attention_heads", "key_value_heads", "experts", "active_experts"),
    "parameters",
)
MODEL = {
    "id": str,
    "model_type": str,
    "architecture": str,
    "head": str,
    "source": str,
    "dimensions": dict,
    "transformers": str,
    "commit": str,
    "basis": str,
    "unexplained": list,
    "missing": list,
    "notes": list,
}
WEIGHT = {
    "name": str,
    "kind": str,
    "component": str,
    "stack": str,
    "block": str,
    "variant": str,
    "part": str,
    "guess": bool,
    "layer": int,
    "in_features": int,
    "out_features": int,
    "experts": int,
    "basis": str,
    "quantization": str,
    "adaptable": bool,
    "reach": str,
    "reason": str,
    "trace": dict,
}
TARGET = {"name": str, "rank": int, "alpha": (int, float), "scale": (int, float), "trainable": int}
FINDING = {"code": str, "severity": str, "where": str, "message": str, "fix": str}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def fits(value: Any, shape: dict[str, Any]) -> None:
    assert value.keys() == shape.keys()
    assert not [key for key, kind in shape.items() if value[key] is not None and not isinstance(value[key], kind)]


@pytest.mark.parametrize("name", ["mixtral", "gpt2", "llava", "t5", "falcon_mamba", "squeezebert", "aria"])
def test_inspect(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "inspect", name, "--component", "text")
    assert found.keys() == {"schema", "gaps", "model", "weights"}
    assert found["gaps"] == found["model"]["unexplained"] == found["model"]["missing"] == []
    assert found["schema"] == 2
    fits(found["model"], MODEL)
    assert tuple(found["model"]["dimensions"]) == DIMENSIONS
    for weight in found["weights"]:
        fits(weight, WEIGHT)
        assert weight["adaptable"] == (weight["reason"] is None) == (weight["reach"] in ("module", "parameter"))
    model = ls.inspect(name)
    assert [weight["name"] for weight in found["weights"]] == [weight.name for weight in model.weights]
    for weight, mine in zip(found["weights"], model.weights, strict=True):
        assert weight["in_features"] * weight["out_features"] * (weight["experts"] or 1) == mine.size


def test_inspect_says_which_way_round(capsys: pytest.CaptureFixture[str]) -> None:
    weights = {weight["name"]: weight for weight in printed(capsys, "inspect", "mixtral")["weights"]}
    embedding = weights["model.embed_tokens"]
    assert (embedding["in_features"], embedding["out_features"]) == (32000, 4096)
    experts = weights["model.layers.0.mlp.experts.down_proj"]
    assert (experts["experts"], experts["in_features"], experts["out_features"]) == (8, 14336, 4096)


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "plan", "deepseek_v3", "attention.q,v=8", "ffn.shared=4/2")
    assert found.keys() == {
        *(
            "schema",
            "gaps",
            "model",
            "rules",
            "targets",
            "trainable",
            "total",
            "left_out",
            "unreachable",
            "notes",
            "releases",
        ),
        *("peft", "serving", "budget", "training", "memory", "advice"),
    }
    fits(found["model"], MODEL)
    for target in found["targets"]:
        fits(target, TARGET)
    names = {weight.name for weight in ls.inspect("deepseek_v3").weights}
    assert {target["name"] for target in found["targets"]} <= names
    assert sum(target["trainable"] for target in found["targets"]) == found["trainable"]
    assert found["rules"] == ["attention.q,v=8", "ffn.shared=4/2"]
    assert found["total"] == found["model"]["dimensions"]["parameters"] == 671_026_404_352
    assert [(group["block"], group["count"]) for group in found["left_out"]] == [("attention", 61), ("ffn", 125)]
    assert found["releases"] == ["0.19.1", "0.20.0", "0.21.2"]
    assert [note["code"] for note in found["notes"]] == [
        "no-dropout",
        "fused-part",
        "fused-part",
        "left-out",
        "left-out",
        "as-parameters",
    ]
    assert all(note.keys() == {"code", "text"} and note["text"] for note in found["notes"])
    assert found["peft"]["target_modules"] == ["kv_a_proj_with_mqa", "kv_b_proj", "q_a_proj", "q_b_proj"]


CHECK_KEYS = {
    *(
        "schema",
        "gaps",
        "model",
        "subject",
        "trainer",
        "peft",
        "targets",
        "saved",
        "trainable",
        "total",
        "matters",
        "findings",
    ),
    "serving",
}


def test_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ls.save_plan(ls.plan(ls.inspect("mistral")), tmp_path)
    found = printed(capsys, "check", "mistral", str(tmp_path))
    assert found.keys() == CHECK_KEYS
    assert (found["peft"], found["trainer"], found["serving"], found["matters"]) == ("0.21.2", None, None, False)
    assert found["findings"] == []
    assert (len(found["targets"]), found["trainable"]) == (64, 3_407_872)
    wrong = {"peft_type": "LORA", "target_modules": ["c_attn"], "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(wrong), encoding="utf-8")
    finding, *explaining = printed(capsys, "check", "mistral", str(tmp_path), code=1)["findings"]
    assert [one["code"] for one in explaining] == ["no-match"]
    fits(finding, FINDING)
    assert (finding["code"], finding["severity"]) == ("refused", "error")


def test_the_page_has_every_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The quoted keys of docs/json.md are those that the commands print."""
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    documented = {key for block in blocks for key in re.findall(r'"(\w+)"(?=\s*[:,}])', block)}
    documented -= {
        "executed",
        "ambiguous",
        "unexecuted",
        "high",
        "medium",
        "low",
        "vllm",
        "sglang",
        "yes",
        "no",
        "depends",
    }
    values = {"id"}  # of records, whose keys are ids

    def keys(value: Any, of: str = "") -> set[str]:
        if isinstance(value, dict):
            if of == "peft":
                return set()
            inner = {key for name, item in value.items() for key in keys(item, name)}
            return inner if of == "records" else {*value, *inner}
        if isinstance(value, list):
            return {key for item in value for key in keys(item, of)}
        return set()

    ls.save_plan(ls.plan(ls.inspect("mistral")), tmp_path)
    printed_keys = values.union(
        keys(printed(capsys, "inspect", "mistral")),
        keys(printed(capsys, "plan", "falcon_mamba", "mixer")),
        keys(printed(capsys, "plan", "mistral", "--budget", "adapter=20MB", "--memory", "--serve", "vllm")),
        keys(printed(capsys, "compare", "jamba", "all")),
        keys(printed(capsys, "recommend", "mixtral", "--task", "instruction")),
        *(keys(record) for record in printed(capsys, "recommend", "llama", "--task", "style")["records"].values()),
        keys(printed(capsys, "check", "mistral", str(tmp_path), "--serve", "vllm")),
        keys(printed(capsys, "check", "mistral", "c_attn", code=1)),
    )
    of_traces = {"named", "guess", "flow", "status", "evidence", "confidence", "disagrees"}
    assert len(printed_keys) > 100
    assert printed_keys | of_traces == documented


def test_the_page_has_every_code_of_a_note() -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    paragraph = page.partition("Codes of a plan's notes: ")[2].partition("\n\n")[0]
    declared = {value.code for value in vars(notes).values() if isinstance(value, Reason)}
    assert len(declared) == 22
    # The last one is PEFT's own.
    assert set(re.findall(r"`([a-z-]+)`", paragraph)) == declared | {"task-type"}
