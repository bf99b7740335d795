"""What docs/checking.md says of CI is so: the hook runs under pre-commit itself, and the action's commands work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from lorascope.cli.main import main
from tests.helpers.paths import ROOT
from tests.helpers.venvs import environment

BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/checking.md").read_text(encoding="utf-8"), re.M | re.S)
GOOD = {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_the_hook_under_pre_commit(tmp_path: Path) -> None:
    python = environment("pre-commit")
    (hooks,) = (block for block in map(yaml.safe_load, BLOCKS) if "repos" in block)
    (repository,) = hooks["repos"]
    repository["repo"] = str(ROOT)
    repository["rev"] = git(ROOT, "rev-parse", "HEAD")
    (tmp_path / ".pre-commit-config.yaml").write_text(yaml.safe_dump(hooks), encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(GOOD), encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")

    def run() -> subprocess.CompletedProcess[str]:
        command = [str(python), "-m", "pre_commit", "run", "--all-files"]
        variables = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "kept"), "GIT_CONFIG_COUNT": "1"}
        variables |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    wrong = {**GOOD, "target_modules": ["q_proj", "nope"]}
    (tmp_path / "two" / "adapter_config.json").write_text(json.dumps(wrong), encoding="utf-8")
    git(tmp_path, "add", ".")
    done = run()
    assert done.returncode == 1
    assert "nope" in done.stdout


def test_the_commands_of_the_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (action,) = (block for block in map(yaml.safe_load, BLOCKS) if "jobs" in block)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "adapters" / "my-adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(GOOD), encoding="utf-8")
    steps = [step["run"] for step in action["jobs"]["check"]["steps"] if "run" in step]
    commands = [shlex.split(step)[1:] for step in steps if step.startswith("lorascope ")]
    assert len(commands) == 1
    assert main(commands[0]) == 0
    (folder / "adapter_config.json").write_text(json.dumps({**GOOD, "target_modules": ["c_attn"]}), encoding="utf-8")
    assert main(commands[0]) == 1


def test_several_files_are_checked_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, targets in (("one", ["q_proj"]), ("two", ["nope", "v_proj"])):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "adapter_config.json")
        files[-1].write_text(json.dumps({**GOOD, "target_modules": targets}), encoding="utf-8")
    assert main(["check", "mistral", *map(str, files), "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["matters"], second["matters"]) == (False, True)
    assert [len(one["targets"]) for one in (first, second)] == [32, 32]
