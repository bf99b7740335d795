"""Models and pipelines of diffusers, by their headers; diffusers itself is not needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.plan_api import plan
from lorascope.sources.source_kinds import hub_folder, is_hub_id
from tests.helpers.diffusers_folders import FLUX, PARTS, pipeline, saved
from tests.helpers.sparse_checkpoints import write_file


def test_a_pipeline_is_its_denoising_model(tmp_path: Path) -> None:
    model = inspect(pipeline(tmp_path))
    assert (model.architecture, model.model_type, model.basis) == ("FluxTransformer2DModel", "", "code")
    assert {module.name: module.kind for module in model.modules if module.parameters} == FLUX["kinds"]
    assert model.unexplained == () and len(FLUX["kinds"]) == 44
    assert model.versions["diffusers"].startswith("0.")
    assert model.notes == (
        "A FluxPipeline of diffusers: this is its transformer (FluxTransformer2DModel). Its other models are text_encoder "
        f"(CLIPTextModel), vae (AutoencoderKL); give {tmp_path}/text_encoder for that one.",
    )
    assert inspect(tmp_path / "transformer").weights == model.weights
    assert len(plan(model, "qv").targets) == 8  # of one double block (image and text) and two single ones


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16.safetensors", "model.safetensors"])
def test_other_names_of_the_weights(name: str, tmp_path: Path) -> None:
    assert inspect(saved(tmp_path, name)).unexplained == ()


def test_two_variants_are_not_chosen_between(tmp_path: Path) -> None:
    for variant in ("fp16", "bf16"):
        saved(tmp_path, f"diffusion_pytorch_model.{variant}.safetensors")
    with pytest.raises(LorascopeError, match="several variants"):
        inspect(tmp_path)


def test_a_tensor_too_many_is_unexplained(tmp_path: Path) -> None:
    saved(tmp_path)
    shapes = {**FLUX["shapes"], "transformer_blocks.0.attn.to_x.weight": [8, 8]}
    write_file(
        tmp_path / "diffusion_pytorch_model.safetensors", {key: ("BF16", shape) for key, shape in shapes.items()}
    )
    assert inspect(tmp_path).unexplained == ("transformer_blocks.0.attn.to_x.weight",)


@pytest.mark.parametrize("name", ["NoSuchTransformer2DModel", "Flux~2", "os.system", 5])
def test_a_class_that_the_table_has_not(name: object, tmp_path: Path) -> None:
    assert inspect(saved(tmp_path, _class_name=name)).basis == "names"
    with pytest.raises(LorascopeError, match="no model of diffusers"):
        inspect(tmp_path, read="config")


def test_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LorascopeError, match="has no head"):
        inspect(saved(tmp_path), head="causal-lm", read="headers")


@pytest.mark.parametrize("index", ["[]", "{", '{"transformer": ["diffusers"]}', '{"unet": [null, null]}', "{}"])
def test_a_broken_pipeline(index: str, tmp_path: Path) -> None:
    pipeline(tmp_path)
    (tmp_path / "model_index.json").write_text(index, encoding="utf-8")
    with pytest.raises(LorascopeError):
        inspect(tmp_path)


def test_a_part_that_leads_elsewhere(tmp_path: Path) -> None:
    saved(tmp_path / "elsewhere")
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps(PARTS), encoding="utf-8")
    (folder / "transformer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LorascopeError, match="a link"):
        inspect(folder)


def test_names_of_parts_on_the_hub() -> None:
    assert hub_folder("black-forest-labs/FLUX.1-dev/transformer") == ("black-forest-labs/FLUX.1-dev", "transformer")
    assert is_hub_id("a/b/unet") and not is_hub_id("a/b/c") and not is_hub_id("a/b/unet.json")
    assert hub_folder("a/unet") == ("a/unet", "")
