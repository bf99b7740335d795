"""GGUF files of every row of the table give the map of the model that they were made from; and what the listing says."""

from __future__ import annotations

from pathlib import Path

import build_gguf_names as building
import pytest
import transformers

import lorascope as ls
from lorascope.cli.main import main
from lorascope.inspecting import inspect
from lorascope.sources.gguf.to_model_map import map_gguf
from lorascope.sources.transformers.meta_model import map_module
from tests.sources.test_gguf import settings_of, write

# What the file does not hold, as the listing says.
ABSENT = {("bert", "bert"): {"pooler.dense"}}


def made(folder: Path, row: building.Row) -> Path:
    config = building.configurations(row)[0]
    file = folder / "model.gguf"
    tensors = building.written(row, building.saved(row, config), config).tensors
    write(file, row.architecture, tensors, settings_of(row, config))
    return file


def row_of(model_type: str) -> building.Row:
    return next(row for row in building.ROWS if row.model_type == model_type)


@pytest.mark.slow
def test_every_row_gives_the_map_of_its_model(tmp_path: Path) -> None:
    assert len(building.ROWS) == 90
    for row in building.ROWS:
        ours = map_gguf(made(tmp_path, row))
        config = building.configurations(row)[0]
        theirs = map_module(getattr(transformers, building.class_name(row))(config))
        absent = ABSENT.get((row.architecture, row.model_type), set())
        label = f"{row.architecture}, {row.model_type}"
        found = {weight.name: (weight.kind, weight.shape, weight.role) for weight in ours.weights}
        real = {weight.name: (weight.kind, weight.shape, weight.role) for weight in theirs.weights}
        assert found == {name: facts for name, facts in real.items() if name not in absent}, label
        assert (ours.source, ours.basis, ours.unexplained) == ("gguf", "code", ()), label


def test_a_plan_for_the_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made(tmp_path, row_of("qwen3_moe"))
    plan = ls.plan(inspect(file), "attention.q=8", "ffn.expert.down=4")
    assert plan.config.target_parameters == ("down_proj",)
    assert any("Adapters are trained on that, not on this file" in note for note in plan.model.notes)
    assert main(["inspect", str(file)]) == 0
    assert "gguf" in capsys.readouterr().out.splitlines()[0]


def test_an_unknown_architecture_is_listed_and_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.gguf"
    write(file, "nobodys", {"token_embd.weight": (64, 32), "blk.0.attn_q.weight": (32, 32)}, {})
    model = inspect(file)
    assert [str(weight.role) for weight in model.weights] == ["text.attention.self.q", "text.embedding.token"]
    assert main(["inspect", str(file)]) == 0
    assert "the original's names are not known" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", str(file), "attention.q=8"]) == 2
    assert "the names that these weights have in the original model are not known" in capsys.readouterr().err
    assert main(["inspect", str(file), "--strict"]) == 2
