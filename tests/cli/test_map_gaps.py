"""A map that does not show the whole model says so first, whatever is asked of it.

The oracle is PEFT on the model that the checkpoint was saved from: it adapts modules that the map does not show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.plans.map_gaps import IncompleteMapWarning
from lorascope.trainers.exports import export
from tests.helpers.samples import TINY_LLAMA
from tests.helpers.sparse_checkpoints import write_checkpoint

Shapes = dict[str, tuple[str, tuple[int, ...]]]
LAYER = {
    **{f"self_attn.{part}_proj": (16, 16) for part in "qkvo"},
    **{f"mlp.{part}_proj": (24, 16) for part in ("gate", "up")},
    "mlp.down_proj": (16, 24),
    "input_layernorm": (16,),
    "post_attention_layernorm": (16,),
}
LLAMA: Shapes = {
    **dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), ("BF16", (32, 16))),
    "model.norm.weight": ("BF16", (16,)),
    **{f"model.layers.{n}.{name}.weight": ("BF16", shape) for n in range(2) for name, shape in LAYER.items()},
}

# A llama's checkpoint with a tower under names that no class of transformers has.
TOWER: Shapes = {
    f"model.eyes.layers.{layer}.{name}.weight": ("BF16", (16, 16))
    for layer in range(3)
    for name in ("attn.q_proj", "attn.v_proj", "mlp.up")
}
CONFIG = TINY_LLAMA
UNEXPLAINED = (
    "error (unexplained): 9 tensors of the checkpoint are unexplained: model.eyes.layers.{0-2}.attn.q_proj.weight, "
    "model.eyes.layers.{0-2}.attn.v_proj.weight, model.eyes.layers.{0-2}.mlp.up.weight."
)
MISSING = (
    "warning (missing-modules): 1 part of LlamaForCausalLM is not in the checkpoint: model.layers.1.mlp.up_proj.*."
)
# Every command that answers about modules, with `SOURCE` for the model and `PLAN` for a plan saved of it.
COMMANDS = (
    "inspect SOURCE",
    "inspect SOURCE --by layer",
    "inspect SOURCE --by module",
    "inspect SOURCE --component text",
    "plan SOURCE",
    "plan SOURCE attention.q,v=8 ffn=4",
    "plan SOURCE qv --budget 2K",
    "plan SOURCE qv --budget memory=1GB",
    "plan SOURCE qv --memory",
    "plan SOURCE --task style",
    "plan SOURCE qv --serve vllm",
    "recommend SOURCE --task style",
    "recommend SOURCE --task style --explain",
    "compare SOURCE",
    "compare SOURCE qv all --explain",
    "check SOURCE q_proj v_proj",
    "check SOURCE q_proj --serve vllm",
    "check SOURCE nothing_like_it",
    "check SOURCE PLAN",
    "check SOURCE --as trl -- --lora_target_modules q_proj v_proj --use_peft",
    # Saved maps and plans keep it.
    "inspect MAP",
    "plan MAP qv",
    "inspect PLAN/plan.json",
    "check PLAN/plan.json q_proj",
)


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a lost tower, a map and a plan of it."""
    return prepared(tmp_path_factory.mktemp("lost"), LLAMA | TOWER)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without one of its modules."""
    return prepared(
        tmp_path_factory.mktemp("short"),
        {name: value for name, value in LLAMA.items() if name != "model.layers.1.mlp.up_proj.weight"},
    )


def prepared(folder: Path, tensors: Shapes) -> Path:
    model = ls.inspect(write_checkpoint(folder / "model", tensors, config=CONFIG))
    ls.save_map(model, folder / "map.json")
    ls.save_plan(ls.plan(model, "qv"), folder / "plan")
    return folder


def words_of(command: str, folder: Path) -> list[str]:
    places = {"SOURCE": folder / "model", "MAP": folder / "map.json", "PLAN": folder / "plan"}
    places["PLAN/plan.json"] = folder / "plan" / "plan.json"
    return [str(places.get(word, word)) for word in command.split()]


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def placed_first(command: str, folder: Path, first: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints, which begins with a gap."""
    assert main(words_of(command, folder)) == 1
    said = capsys.readouterr()
    answer = in_one_line(said.out)
    assert answer.startswith((f"✗ {first}", f"! {first}"))
    assert answer.count(first) == 1
    assert "--source config" in answer.partition("model ")[0] + answer.partition("→")[2][:300]
    return answer


@pytest.mark.parametrize("command", COMMANDS)
def test_a_lost_tower_is_said_first(command: str, lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = placed_first(command, lost, UNEXPLAINED, capsys)
    assert "exactly" not in answer
    assert "nothing to report" not in answer
    assert "Verified" not in answer


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_modules_are_said_first(command: str, short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = placed_first(command, short, MISSING, capsys)
    assert "exactly" not in answer
    assert "nothing to report" not in answer
    assert "Verified" not in answer


@pytest.mark.parametrize("command", COMMANDS)
def test_json_has_it_first(command: str, lost: Path, short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.replace(" -- ", " --json -- ") if " -- " in command else f"{command} --json"
    for folder, code, severity, text in (
        (lost, "unexplained", "error", UNEXPLAINED),
        (short, "missing-modules", "warning", MISSING),
    ):
        assert main(words_of(words, folder)) == 1
        said = capsys.readouterr()
        body: dict[str, Any] = json.loads(said.out)
        assert list(body)[:2] == ["schema", "gaps"]
        (gap,) = body["gaps"]
        assert (gap["code"], gap["severity"]) == (code, severity)
        assert text.partition(": ")[2] in gap["message"]
        assert "--source config" in gap["fix"]
        assert said.err.startswith(text)  # for who reads the terminal
        model = body["plan"]["model"] if "plan" in body else body["model"]
        assert (len(model["unexplained"]), len(model["missing"])) == ((9, 0) if folder is lost else (0, 1))
        if "findings" in body:
            assert body["findings"][0] == gap
            assert body["matters"] is True
        if "notes" in body and command.startswith("plan"):
            assert body["notes"][0]["code"] == code


def test_every_command_is_asked() -> None:
    from lorascope.cli.commands import PURPOSES

    assert {command.split()[0] for command in COMMANDS} | {"export"} == set(PURPOSES)
    assert len(COMMANDS) == 24


# Exports: the file is written, with the gap above everything else in it.


@pytest.mark.parametrize(
    ("tool", "commented"),
    [
        ("peft", False),
        *((tool, True) for tool in ("peft-python", "axolotl", "llamafactory", "trl", "ms-swift", "unsloth", "mlx-lm")),
        ("torchtune", True),
    ],
)
def test_an_export_says_it(tool: str, commented: bool, lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["export", str(lost / "plan"), "--to", tool])
    said = capsys.readouterr()
    assert said.err.startswith(UNEXPLAINED)
    if code == 2:  # a trainer of its own models cannot run it
        assert tool == "torchtune"
        return
    assert code == 1
    lines = said.out.splitlines()
    if not commented:
        with pytest.warns(IncompleteMapWarning, match="9 tensors of the checkpoint are unexplained"):
            assert json.loads(export(ls.load_plan(lost / "plan"), tool)) == json.loads(said.out)
    else:
        first = next(line for line in lines if line.startswith("# "))
        assert first.startswith("# ERROR: 9 tensors of the checkpoint are unexplained: model.eyes.layers.{0-2}.")
        assert first in lines[:2]
        assert first in export(ls.load_plan(lost / "plan"), tool)


# In Python.


def test_a_saved_plan_keeps_it(lost: Path, short: Path) -> None:
    for folder, code in ((lost, "unexplained"), (short, "missing-modules")):
        plan = ls.load_plan(folder / "plan")
        assert plan.notes[0].code == code
        kept = json.loads((folder / "plan" / "plan.json").read_text(encoding="utf-8"))
        assert kept["notes"][0]["code"] == code
        assert "exactly" not in str(plan)
        assert plan.model == ls.inspect(folder / "model")


def test_verify_warns_first(lost: Path, short: Path) -> None:
    for folder, code in ((lost, "unexplained"), (short, "missing-modules")):
        model = ls.inspect(folder / "model")
        plan = ls.plan(model, "qv")
        for config in (plan, plan.config, {"target_modules": ["q_proj"], "r": 4}, {"target_modules": ["nothing"]}):
            assert ls.verify(model, config).warnings[0].code == code
        assert ls.check(model, "q_proj").findings[0].code == code
        assert ls.check(model, "q_proj").matters
        assert str(ls.compare(model, "qv")).partition("(")[2].startswith(code)
        assert str(ls.recommend(model, "style")).partition("(")[2].startswith(code)
        assert str(ls.plan(model, "qv", budget="2K")).partition("(")[2].startswith(code)


def test_a_configuration_that_leaves_warns(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")  # which warns of torch when it is loaded
    with pytest.warns(IncompleteMapWarning, match=r"9 tensors of the checkpoint are unexplained.*--source config"):
        assert sorted(ls.load_plan(lost / "plan").to_peft().target_modules) == ["q_proj", "v_proj"]
    with pytest.warns(IncompleteMapWarning, match="9 tensors of the checkpoint are unexplained"):
        assert ls.create_attention_lora_config(model=lost / "model")["target_modules"] == ["q_proj", "v_proj"]
    ls.list_trainable_modules(lost / "model")
    assert capsys.readouterr().out.startswith("error: 9 tensors of the checkpoint are unexplained")


def test_peft_adapts_what_the_map_does_not_show(lost: Path) -> None:
    """The reason for all of it: the tower's queries are adapted too."""
    import peft
    import torch
    import transformers

    config = transformers.LlamaConfig(**{key: value for key, value in CONFIG.items() if key != "architectures"})
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(config)
        module.model.eyes = torch.nn.Module()
        module.model.eyes.layers = torch.nn.ModuleList(torch.nn.Module() for _ in range(3))
        for layer in module.model.eyes.layers:
            layer.attn = torch.nn.ModuleDict({name: torch.nn.Linear(16, 16) for name in ("q_proj", "v_proj")})
    plan = ls.plan(ls.inspect(lost / "model"), "qv")
    with torch.device("meta"), pytest.warns(IncompleteMapWarning):
        adapted = peft.get_peft_model(module, plan.to_peft())
    wrapped = [name for name, part in adapted.named_modules() if isinstance(part, peft.tuners.lora.LoraLayer)]
    assert (len(plan.targets), len(wrapped)) == (4, 10)


def test_a_proof_does_not_say_exactly(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(lost / "model"), "qv", "--prove"]) == 1
    said = capsys.readouterr()
    assert "4 modules" in said.err
    assert "as the plan says, on the LlamaForCausalLM that transformers builds" in said.err
    assert "exactly" not in said.out + said.err


def test_the_next_step_works(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(lost / "model"), "--source", "config"]) == 0
    assert "unexplained" not in capsys.readouterr().out


def test_whole_maps_say_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepared(tmp_path, LLAMA)
    for command in COMMANDS:
        if "nothing_like_it" not in command:
            assert main(words_of(command, folder)) in (0, 1)
            said = capsys.readouterr()
            assert "unexplained" not in said.out + said.err
            assert "not in the checkpoint" not in said.out + said.err
    assert main(words_of("plan SOURCE qv", folder)) == 0
    assert "adapts exactly these 4 modules" in capsys.readouterr().out
    assert ls.verify(ls.inspect(folder / "model"), {"target_modules": ["q_proj"]}).warnings == ()


def test_a_missing_bias_is_no_gap(tmp_path: Path) -> None:
    from lorascope import light_dataclasses as dataclasses

    model = ls.inspect(write_checkpoint(tmp_path, LLAMA, config=CONFIG))
    known = dataclasses.replace(model, missing=("model.layers.0.self_attn.q_proj.bias",))
    assert ls.plan(known, "qv").notes[0].code == "left-out"
    assert "Verified" in str(ls.plan(known, "qv"))


def test_a_map_of_names_alone_is_not_called_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"model_type": "nobodys", "architectures": ["NobodysForCausalLM"]}
    folder = write_checkpoint(tmp_path, LLAMA, config=config)
    assert main(["plan", str(folder), "qv"]) == 0
    answer = in_one_line(capsys.readouterr().out)
    assert "Not verified: this model is known by the names in its checkpoint alone." in answer
    assert "exactly" not in answer
    assert "Verified for" not in answer


def test_thousands_of_names_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd: Shapes = {f"model.odd_{number}.{'x' * 300}.weight": ("BF16", (16, 16)) for number in range(500)}
    folder = write_checkpoint(tmp_path, LLAMA | odd, config=CONFIG)
    for command in ("inspect", "plan", "recommend --task style", "compare"):
        verb, *rest = command.split()
        assert main([verb, str(folder), *rest]) == 1
        gap = in_one_line(capsys.readouterr().out).partition(" → ")[0]
        assert "500 tensors of the checkpoint are unexplained" in gap
        assert "and 494 more" in gap
        assert len(gap) < 2_000
