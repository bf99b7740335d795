"""What is written: never over anything else's, with its mode, and the files of one plan together or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lorascope.cli.main import main
from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
from lorascope.plans.files import load_plan, save_map, save_plan, save_text
from tests.helpers.samples import fails, sample

TENSORS = b"\x02\0\0\0\0\0\0\0{}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def trained(folder: Path) -> None:
    """What PEFT saves after training, into the folder that was planned into."""
    save_plan(plan(sample("gpt2")), folder)
    (folder / "adapter_model.safetensors").write_bytes(TENSORS)


def changed(folder: Path) -> None:
    save_plan(plan(sample("gpt2")), folder)
    file = folder / "adapter_config.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"r": 8', '"r": 9'), encoding="utf-8")


def changed_plan(folder: Path) -> None:
    _, file = save_plan(plan(sample("gpt2")), folder)
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**data, "notes": ["mine"]}), encoding="utf-8")


def checkpoint(folder: Path) -> None:
    (folder / "checkpoint-100").mkdir()


def linked(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    outside.write_text("{}", encoding="utf-8")
    (folder / "plan.json").symlink_to(outside)


def file_called(name: str, content: bytes = TENSORS) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return make


# What is in a folder, and what is said when a plan is to be written there.
PRECIOUS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a trained adapter": (trained, "holds 'adapter_model.safetensors'"),
    "an adapter in torch's format": (file_called("adapter_model.bin"), "holds 'adapter_model.bin'"),
    "a model": (file_called("model.safetensors"), "holds 'model.safetensors'"),
    "a model in shards": (file_called("model-00001-of-00002.safetensors"), "holds 'model-00001"),
    "a model's index": (file_called("model.safetensors.index.json", b"{}"), "holds 'model.safetensors.index.json'"),
    "a model in torch's format": (file_called("pytorch_model-00001-of-00002.bin"), "holds 'pytorch_model-00001"),
    "a GGUF file": (file_called("model.gguf"), "holds 'model.gguf'"),
    "a configuration": (file_called("config.json", b'{"model_type": "llama"}'), "holds a model's config.json"),
    "a training's state": (file_called("trainer_state.json", b"{}"), "holds 'trainer_state.json'"),
    "a training's checkpoint": (checkpoint, "holds 'checkpoint-100'"),
    "a changed configuration": (changed, "'adapter_config.json' already exists and does not belong"),
    "a changed plan": (changed_plan, "'plan.json' already exists and is not a plan as lorascope saved it"),
    "another's configuration": (file_called("adapter_config.json", b'{"peft_type": "LORA"}'), "'adapter_config.json'"),
    "another's plan.json": (
        file_called("plan.json", b'{"buy": "milk"}'),
        "'plan.json' already exists and is not a plan as lorascope saved it",
    ),
    "a map called plan.json": (
        lambda folder: shutil.copy(save_map(sample("gpt2"), folder.parent / "map.json"), folder / "plan.json"),  # type: ignore[arg-type,return-value]
        "'plan.json' already exists and is not a plan as lorascope saved it",
    ),
    "a link": (linked, "'plan.json' is a link, which would be replaced by a file"),
}


@pytest.mark.parametrize("what", PRECIOUS)
def test_a_plan_damages_nothing(what: str, tmp_path: Path) -> None:
    make, said = PRECIOUS[what]
    folder = tmp_path / "here"
    folder.mkdir()
    make(folder)
    before = contents(folder)
    made = plan(sample("gpt2"), "all")
    with fails(said, "--force", str(folder)):
        save_plan(made, folder)
    assert main(["plan", "gpt2", "-o", str(folder)]) == 2
    assert contents(folder) == before
    # The advice works, and even then nothing is lost but the two files.
    save_plan(made, folder, force=True)
    assert load_plan(folder) == made
    assert before.keys() - contents(folder).keys() == set()
    for name in before.keys() - {"plan.json", "adapter_config.json"}:
        assert contents(folder)[name] == before[name]
    if what == "a link":
        assert (tmp_path / "outside.json").read_text(encoding="utf-8") == "{}"


def test_plans_are_replaced_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"project": "no model"}', encoding="utf-8")
    for rules in ("qv", "all", "ffn", "qv"):
        save_plan(plan(sample("gpt2"), rules), tmp_path)
        assert load_plan(tmp_path) == plan(sample("gpt2"), rules)
    assert contents(tmp_path).keys() == {"adapter_config.json", "plan.json", "notes.txt", "config.json"}


def test_a_map_replaces_maps_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "map.json"
    for model in ("gpt2", "llama", "gpt2"):
        assert save_map(sample(model), file) == file
    plan_file = save_plan(plan(sample("gpt2")), tmp_path / "plan")[1]
    edited = save_map(sample("gpt2"), tmp_path / "edited.json")
    edited.write_text(edited.read_text(encoding="utf-8").replace('"notes": []', '"notes": ["mine"]'), encoding="utf-8")
    others = {
        "edited.json": edited.read_bytes(),
        "config.json": b"{}",
        "notes.txt": b"mine",
        "list.json": b"[]",
        "empty": b"",
        "bytes": b"\xff",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for precious in (plan_file, *(tmp_path / name for name in others)):
        before = precious.read_bytes()
        with fails(
            f"'{precious.name}' already exists and is not a map as lorascope saved it; you may have edited it",
            "--force",
        ):
            save_map(sample("gpt2"), precious)
        assert main(["inspect", "gpt2", "-o", str(precious)]) == 2
        assert precious.read_bytes() == before
    assert main(["inspect", "gpt2", "-o", str(tmp_path / "notes.txt"), "--force"]) == 0
    assert main(["inspect", str(tmp_path / "notes.txt")]) == 0
    assert "notes.txt" in capsys.readouterr().err


def test_an_export_replaces_nothing_that_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = str(tmp_path / "plan"), tmp_path / "axolotl.yaml"
    assert main(["plan", "mistral", "-o", folder]) == 0
    command = ["export", folder, "--to", "axolotl", "-o", str(file)]
    assert main(command) == 0
    assert main(command) == 0  # the same text
    changed_text = file.read_text(encoding="utf-8") + "# mine\n"
    file.write_text(changed_text, encoding="utf-8")
    assert main(command) == 2
    assert "with other content; you may have edited it" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == changed_text
    assert main([*command, "--force"]) == 0
    assert file.read_text(encoding="utf-8") + "# mine\n" == changed_text


@pytest.mark.parametrize("kind", ["trained", "changed", "changed_plan"])
def test_leftovers_of_a_killed_writing_replace_nothing(kind: str, tmp_path: Path) -> None:
    """As a kill leaves them, or whoever made the folder: they are no reason to touch what is there now."""
    make = {"trained": trained, "changed": changed, "changed_plan": changed_plan}[kind]
    make(tmp_path)
    other = tmp_path / "other"
    for file in save_plan(plan(sample("gpt2"), "all"), other):
        for end in ("new", "old"):
            shutil.copy(file, tmp_path / f".{file.name}.{end}")
    before = contents(tmp_path)
    with fails("--force"):
        save_plan(plan(sample("gpt2"), "ffn"), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
@pytest.mark.parametrize("name", [".plan.json.new", ".plan.json.old", ".adapter_config.json.new"])
def test_odd_leftovers_are_not_put_in_place(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine", encoding="utf-8")
    made = plan(sample("gpt2"))
    for make in (Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to(secret)):
        folder = tmp_path / "plan"
        folder.mkdir()
        make(folder / name)
        try:
            save_plan(made, folder)
        except LorascopeError as error:
            assert "there is something else than a file" in str(error)
            assert [path.name for path in folder.iterdir()] == [name]
        else:
            assert load_plan(folder) == made
            assert not any(path.is_symlink() for path in folder.iterdir())
        assert secret.read_text(encoding="utf-8") == "mine"
        shutil.rmtree(folder)


@pytest.mark.parametrize("place", ["", " ", "-"])
@pytest.mark.parametrize("command", ["inspect", "plan", "export"])
def test_no_place(command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_plan(plan(sample("mistral")), tmp_path / "plan")
    monkeypatch.chdir(tmp_path)
    words = {"inspect": ["mistral"], "plan": ["mistral"], "export": ["plan", "--to", "trl"]}[command]
    assert main([command, *words, "-o", place]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    with fails("is not a place to write to", "Leave -o out"):
        save_text("x", place)


@pytest.mark.parametrize("place", [None, 5, b"x", []])
def test_no_path(place: object) -> None:
    for save in (lambda: save_text("x", place), lambda: save_plan(plan(sample("gpt2")), place)):  # type: ignore[arg-type]
        with fails(f"a {type(place).__name__} is not a place to write to", "Give a path"):
            save()


def test_no_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_plan(plan(sample("mistral")), tmp_path)
    assert main(["export", str(tmp_path), "--to", "trl", "--output-dir", ""]) == 2
    assert "--output-dir is empty" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_modes_are_kept(tmp_path: Path) -> None:
    for path in (*save_plan(plan(sample("gpt2")), tmp_path), save_map(sample("gpt2"), tmp_path / "map.json")):
        path.chmod(0o600)
    save_plan(plan(sample("gpt2"), "all"), tmp_path)
    save_map(sample("llama"), tmp_path / "map.json")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_s_plan_does_not_lead_out_of_it(tmp_path: Path) -> None:
    _, file = save_plan(plan(sample("gpt2")), tmp_path / "plan")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plan.json").symlink_to(file)
    with fails("plan.json is a link that leads out of the folder"):
        load_plan(tmp_path / "other")
    assert load_plan(file) == load_plan(tmp_path / "other" / "plan.json")  # who names the link means it


# A process that writes one plan after the other into a folder, forked again and again, and killed at any moment.
KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from lorascope.plan_api import plan
from lorascope.plans.files import load_plan, save_plan, _written_config
from lorascope.sources.builtin import load_builtin

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
plans = [plan(load_builtin("gpt2", ""), rules) for rules in ("qv", "all")]
random.seed(7)
seen = {"pairs": 0, "between": 0, "mixed": 0, "lost": 0, "left": 0}
save_plan(plans[0], folder)  # on a busy machine the first writer is killed before it has written anything
for number in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            for one in plans:
                save_plan(one, folder)
    time.sleep(0.02 + random.random() * 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    files = {path.name: path for path in folder.iterdir()}
    if "plan.json" in files:
        data = json.loads(files["plan.json"].read_text())
        same = json.loads(files["adapter_config.json"].read_text()) == _written_config(data)
        seen["pairs" if same else "mixed"] += 1
    else:
        seen["between"] += 1
    seen["lost"] += load_plan(folder) not in plans
    if number % 3 == 0:
        save_plan(plans[0], folder)
        seen["left"] += len(list(folder.iterdir())) != 2
print(json.dumps(seen))
"""


def after_kills(folder: Path, kills: int) -> dict[str, int]:
    code = [sys.executable, "-c", KILLED, str(folder), str(kills)]
    done = subprocess.run(code, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    assert found["pairs"] + found["between"] == kills
    assert found["mixed"] == found["lost"] == found["left"] == 0
    return found


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
def test_a_kill_leaves_one_plan(tmp_path: Path) -> None:
    after_kills(tmp_path, 30)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
def test_many_kills_leave_one_plan(tmp_path: Path) -> None:
    assert after_kills(tmp_path, 600)["pairs"] > 60


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
@pytest.mark.parametrize("stop", range(1, 10))
def test_a_stop_between_any_two_moves(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rename and removal in turn is the last: the plan is the old or the new one, and the next writing mends."""
    old, new = plan(sample("gpt2")), plan(sample("gpt2"), "all")
    save_plan(old, tmp_path)
    moves = 0

    def last(real: Callable[..., object]) -> Callable[..., object]:
        def move(*arguments: object, **options: object) -> object:
            nonlocal moves
            moves += 1
            if moves >= stop:  # the process is gone: nothing more happens
                raise SystemExit
            return real(*arguments, **options)

        return move

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", last(os.replace))
        patched.setattr(os, "unlink", last(os.unlink))
        try:
            save_plan(new, tmp_path)
        except SystemExit:
            pass
        else:
            assert moves < stop, "every move was tried"
    files = contents(tmp_path)
    if "plan.json" in files:
        rules = json.loads(files["plan.json"])["adapter_config"]
        written = json.loads(files["adapter_config.json"])
        assert {key: written[key] for key in rules} == rules
    assert load_plan(tmp_path) in (old, new)
    save_plan(old, tmp_path)
    assert contents(tmp_path).keys() == {"adapter_config.json", "plan.json"}
    assert load_plan(tmp_path) == old


WRITER = """
import sys
from pathlib import Path
from lorascope.plan_api import plan
from lorascope.plans.files import save_plan
from lorascope.sources.builtin import load_builtin

plans = [plan(load_builtin("gpt2", ""), rules) for rules in ("qv", "all")]
for number in range(15):
    save_plan(plans[(number + int(sys.argv[2])) % 2], Path(sys.argv[1]))
print("wrote 15")
"""


@pytest.mark.slow
def test_many_writers(tmp_path: Path) -> None:
    """120 writings by eight processes into one folder that was not there."""
    folder = tmp_path / "new" / "plan"
    code = [sys.executable, "-c", WRITER, str(folder)]
    writers = [subprocess.Popen([*code, str(number)], stdout=subprocess.PIPE, text=True) for number in range(8)]
    assert [writer.communicate(timeout=300)[0] for writer in writers] == ["wrote 15\n"] * 8
    assert contents(folder).keys() == {"adapter_config.json", "plan.json"}
    assert load_plan(folder) in [plan(sample("gpt2"), rules) for rules in ("qv", "all")]
    data = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    written = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert written == {"peft_type": "LORA", "base_model_name_or_path": None, **data["adapter_config"]}
