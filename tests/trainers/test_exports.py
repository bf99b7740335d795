"""Exports: refusals say everything that would be lost and a plan that works, and what is written does the plan."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import subprocess
from pathlib import Path

import pytest

import lorascope as ls
from lorascope.cli.export import TOOLS
from lorascope.cli.main import main
from lorascope.trainers import exports
from lorascope.trainers.exports import export, nearest_plan, plan_command
from lorascope.trainers.registry import TRAINERS, trainer_called, trainers_marked
from tests.helpers.samples import fails, sample


def test_the_command_line_names_every_trainer() -> None:
    assert tuple(TRAINERS) == TOOLS


def test_names_are_those_under_which_they_stand() -> None:
    for name, trainer in TRAINERS.items():
        assert trainer.name == name
        assert trainer.release and trainer.title and trainer.marks
        assert trainer.form in ("json", "yaml", "command", "python")


@pytest.mark.parametrize("name", ["axolotl", "llamafactory", "trl", "ms-swift", "torchtune", "mlx-lm"])
def test_a_class_of_transformers_that_generates_nothing_goes_to_no_trainer_of_text(name: str) -> None:
    model = dataclasses.replace(
        sample("llama"), source="headers", head="unknown", architecture="LlamaModel", prepares_generation=False
    )
    with fails("trains models that generate text, which LlamaModel does not"):
        export(ls.plan(model, "qv"), name, base="org/model")
    export(ls.plan(model, "qv"), "peft", base="org/model")


def test_an_unknown_trainer_is_told_the_nearest() -> None:
    with fails("unknown trainer 'axolot'", 'Did you mean "axolotl"?'):
        trainer_called("axolot")


@pytest.mark.parametrize("name", TOOLS)
def test_the_frugal_plan_of_a_plain_model_goes_everywhere(name: str) -> None:
    text = export(ls.plan(sample("llama"), "qv"), name, base="org/model")
    assert "org/model" in text
    assert text.endswith("\n")


@pytest.mark.parametrize("name", [name for name in TOOLS if not name.startswith("peft")])
def test_what_is_written_is_recognized(name: str) -> None:
    """A file that was exported is known for its trainer's, without being told."""
    import re

    text = export(ls.plan(sample("llama"), "qv"), name)
    assert TRAINERS[name] in trainers_marked(set(re.findall(r"[\w-]+", text)))


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift", "trl", "torchtune", "mlx-lm"])
def test_ranks_that_differ_are_refused_with_a_plan_that_works(name: str) -> None:
    plan = ls.plan(sample("llama"), "qv+ffn")
    with fails(f"export to {name}: ", "takes one rank", "lorascope plan llama") as caught:
        export(plan, name)
    command = caught.value.hint.rpartition(": ")[2]
    words = shlex.split(command)
    assert words[:3] == ["lorascope", "plan", "llama"]
    near = nearest_plan(plan, TRAINERS[name])
    assert near is not None and plan_command(near[1]) == command
    assert export(near[1], name)
    assert {target.weight.name for target in near[1].targets} == {target.weight.name for target in plan.targets}


def test_the_search_of_a_nearer_plan_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ls.plan(sample("llama"), "qv+ffn")
    monkeypatch.setattr(exports, "_SECONDS", 0.0)
    with fails("takes one rank", "Found no close plan within 0 seconds. Export to peft, which takes every plan."):
        export(plan, "trl")
    monkeypatch.setattr(exports, "_SECONDS", 5.0)
    clock = itertools.count(step=2.0)
    monkeypatch.setattr("time.thread_time", lambda: next(clock))
    with pytest.raises(TimeoutError):
        nearest_plan(plan, TRAINERS["torchtune"])
    assert next(clock) <= 10


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("torchtune", "mixtral", "torchtune has no model of type mixtral"),
        ("mlx-lm", "bert", "has no bert models"),
        ("torchtune", "t5", "does not train models with the head"),
        ("axolotl", "bert", "does not train models with the head"),
        ("trl", "bert", "does not train models with the head"),
    ],
)
def test_no_plan_is_tried_of_a_model_that_a_tool_does_not_have(
    name: str, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "nearest_plan", lambda *_: pytest.fail("plans are tried"))
    plan = ls.plan(ls.inspect(source), "attention")
    with fails(said, f"{TRAINERS[name].title} can run no plan close to this one."):
        export(plan, name)


def test_a_command_makes_the_plan_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tried = 0
    for rules, options in (
        (["qv+ffn"], {}),
        (["attention.q,v=8/32", "ffn[-8:]=4"], {"dropout": 0.0}),
        (["all"], {"scale": 2.0, "rslora": True, "layers": "-4:"}),
        (["attention"], {"dora": True, "bias": "all", "exclude": ["attention.o"]}),
        (["attention.q", "ffn=2"], {"rank": 32, "alpha": 64}),
    ):
        plan = ls.plan(sample("llama"), *rules, **options)
        folder = tmp_path / str(tried)
        assert main([*shlex.split(plan_command(plan))[1:], "-o", str(folder)]) == 0
        again = ls.load_plan(folder)
        assert (again.config, again.targets) == (plan.config, plan.targets)
        tried += 1
    assert tried == 5


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ls.save_plan(ls.plan(sample("mistral"), "qv"), tmp_path / "plan")
    assert main(["export", str(tmp_path / "plan"), "--to", "axolotl", "--base", "org/model"]) == 0
    out = capsys.readouterr().out
    assert "base_model: org/model\n" in out
    assert main(["export", str(tmp_path / "plan"), "--to", "axolotl", "--base", "org/model", "-o", "x.yaml"]) == 0
    assert Path("x.yaml").read_text(encoding="utf-8") == out
    Path("x.yaml").unlink()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing", "--to", "peft"], "nothing"),
        (["plan", "--to", "axolot"], 'Did you mean "axolotl"?'),
        (["plan", "--to", "peft", "-o", "plan"], "cannot be written"),
    ],
)
def test_mistakes(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ls.save_plan(ls.plan(sample("mistral"), "qv"), "plan")
    assert main(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "name", ["-x", "--prove", "a b", "$(touch CANARY)", "a'; touch CANARY; '", "`id`", "a\\", "#a", "~"]
)
def test_a_command_can_be_pasted_whatever_the_model_is_called(name: str) -> None:
    made = ls.plan(
        dataclasses.replace(sample("llama"), model=name), "attention.q,v=8", "ffn[-8:]=4", exclude=["attention.k"]
    )
    done = subprocess.run(
        ["bash", "-c", f"lorascope() {{ printf '%s\\0' \"$@\"; }}\n{plan_command(made)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("\0")[:-1]
    assert words == shlex.split(plan_command(made))[1:]
    assert sorted(words[-3:] if name.startswith("-") else words[1:4]) == sorted([name, "attention.q,v=8", "ffn[-8:]=4"])
    assert ("--" in words) == name.startswith("-")


def test_a_class_that_python_cannot_name_is_refused() -> None:
    for name in ("", "class", "X\nimport os", "a.b", "X()"):
        made = ls.plan(dataclasses.replace(sample("llama"), architecture=name), "qv")
        with fails("export to peft-python: the model's class is", "Export to peft"):
            export(made, "peft-python")


def test_what_the_user_says_is_text() -> None:
    with fails("export to trl: base is not a string"):
        export(ls.plan(sample("llama"), "qv"), "trl", base=Path("a"))  # type: ignore[arg-type]
