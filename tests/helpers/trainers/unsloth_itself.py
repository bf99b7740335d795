"""What is said of Unsloth's `get_peft_model` beside what it does: run by a Python that has Unsloth and PEFT, by its tests.

Unsloth stops where there is no GPU as soon as it is imported. So its functions are taken out of its files and run with the
functions that they call: both `get_peft_model` up to PEFT's own, which is the real one, with Unsloth's change of PEFT's
rewrite for experts, and after it `prepare_model_for_training`, which decides what is trained. Prints one JSON object a line:
the releases, what Unsloth sees in every configuration, then a model, a script, what is said of it and what was done.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import io
import json
import logging
import os
import re
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

architectures.mend_torchvision()

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft.tuners.lora.model import LoraModel  # noqa: E402

import lorascope as ls  # noqa: E402
from lorascope.plan_api import plan  # noqa: E402
from lorascope.sources.builtin import load_builtin  # noqa: E402
from lorascope.trainers.exports import export  # noqa: E402
from lorascope.trainers.unsloth.search import counts_experts  # noqa: E402
from lorascope.trainers.unsloth.trainer import UNSLOTH  # noqa: E402
from tests.helpers.few_layers import few_layers  # noqa: E402
from tests.helpers.oracle import adapted_weights, restored  # noqa: E402

PLANS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("attention=4",), {}),
    (("attention,ffn=4",), {"layers": "-1:"}),
    (("attention.q,v=4/16", "ffn=2"), {}),
    (("ffn.down=4",), {"rslora": True}),
    (("attention=4",), {"dora": True, "bias": "lora_only"}),
    (("all",), {"rank": 4}),
    (("attention.q=4", "head=4"), {}),
)
SEVEN = '["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]'
# As users write them, after the model.
WRITTEN = (
    "FastLanguageModel:",
    f"FastLanguageModel:r=8, target_modules={SEVEN}, lora_alpha=24",
    "FastLanguageModel:target_modules=['q_proj', 'v_proj', 'embed_tokens', 'lm_head']",
    "FastLanguageModel:target_modules=['q_proj'], modules_to_save=['norm']",
    "FastLanguageModel:target_modules=['lm_head']",
    "FastLanguageModel:target_modules=None",
    "FastLanguageModel:finetune_mlp_modules=False",
    "FastLanguageModel:target_modules='all-linear', finetune_last_n_layers=1",
    f"FastLanguageModel:target_modules={SEVEN}, layers_to_transform=[0, 1]",
    f"FastLanguageModel:target_modules={SEVEN}, target_parameters=[]",
    "FastModel:",
    "FastModel:use_rslora=True, finetune_vision_layers=False, nonsense=1",
    "FastModel:finetune_language_layers=False",
    "FastModel:finetune_attention_modules=False",
    "FastModel:finetune_mlp_modules=False, finetune_audio_layers=True",
    f"FastModel:target_modules={SEVEN}",
    f"FastModel:target_modules={SEVEN}, finetune_vision_layers=False",
    f"FastModel:target_modules={SEVEN}, finetune_mlp_modules=False",
    "FastVisionModel:target_modules='all-linear'",
    "FastVisionModel:target_modules=r'.*(q_proj|down_proj)', layers_to_transform=1",
    "FastVisionModel:target_modules=r'.*mlp.*_proj'",
    "FastModel:finetune_last_n_layers=2, bias='all'",
    "FastModel:target_modules=['gate_proj', 'up_proj', 'o_proj'], rank_pattern={'o_proj': 3}, target_parameters=[]",
    "FastModel:target_modules=['down_proj', 'self_attn.q_proj'], target_parameters=[]",
    "FastModel:target_modules='all-linear', target_parameters=[]",
    "FastModel:finetune_attention_modules=False, finetune_mlp_modules=False",
    "FastModel:target_modules=('q_proj', 'c_attn', 'qkv_proj'), layers_to_transform=(0, 2), layers_pattern='layers'",
    "FastModel:target_modules=['q_proj', 'embed_tokens', 'lm_head'], ensure_weight_tying=False",
    "FastLanguageModel:target_modules=['q_proj', 'embed_tokens', 'lm_head'], ensure_weight_tying=True",
    "FastModel:target_modules=['o_proj', 'fc1'], exclude_modules=['layers.0'], modules_to_save=['lm_head'], lora_bias=True",
    "FastModel:target_modules='all-linear', finetune_language_layers=False, alpha_pattern={'v_proj': 3}",
    "FastModel:target_modules=[], target_parameters=['experts.down_proj'], finetune_last_n_layers=1",
)
# Loaded so that FastLanguageModel does not use its own code on any type.
SLOW = (
    "FastLanguageModel:",
    "FastLanguageModel:finetune_mlp_modules=False, lora_alpha=4",
    "FastLanguageModel:target_modules=['q_proj', 'lm_head'], modules_to_save=['mlp'], nonsense=1",
)
MODELS = {
    "causal-lm": (
        *("llama", "qwen3", "gemma2", "gpt2", "gpt_neo", "falcon_h1", "mamba2", "nemotron_h", "zaya"),
        *(
            "qwen3_moe",
            "qwen2_moe",
            "mixtral",
            "gpt_oss",
            "phimoe",
            "deepseek_v3",
            "afmoe",
            "ernie4_5_moe",
            "aria_text",
        ),
    ),
    "image-text-to-text": (
        *("llava", "qwen2_5_vl", "gemma3", "gemma3n", "gemma4", "llama4", "internvl", "qwen3_vl_moe", "blip-2"),
        "t5gemma2",
    ),
    "sequence-classification": ("llama", "qwen3_moe", "bert"),
    "masked-lm": ("distilbert", "modernbert"),
}
# The files whose functions are imported by functions of others.
IMPORTED_FROM = ("remote_moe_shims", "loader_utils", "lora_init", "grouped_linear_lora")
# Functions that are not run.
WITHOUT = (
    "clean_gpu_cache",
    "apply_unsloth_gradient_checkpointing",
    "unpatch_unsloth_gradient_checkpointing",
    "unpatch_unsloth_smart_gradient_checkpointing",
)


class CalledError(Exception):
    """PEFT made its model, and what Unsloth does after that is not run."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


def call_peft(model: Any, config: Any) -> Any:
    with torch.device("meta"):
        raise CalledError(peft.get_peft_model(model, config))


class Taken(dict[str, Any]):
    """The globals of functions that are taken out of files: what one of them names is taken when it is first looked up."""

    def __init__(self, files: list[Path], **given: Any) -> None:
        super().__init__(given)
        self.definitions: dict[str, tuple[Path, ast.stmt]] = {}
        for file in files:
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                for name, part in parts_of(node):
                    self.definitions.setdefault(name, (file, part))

    def __missing__(self, name: str) -> Any:
        self.run(*self.definitions[name])  # a KeyError has Python look among its own names
        return self[name]

    def run(self, file: Path, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        exec(compile(ast.Module([node], []), str(file), "exec"), self)

    def method(self, class_name: str, name: str) -> Any:
        """A method of a class, without the rest of the class."""
        file, owner = self.definitions[class_name]
        assert isinstance(owner, ast.ClassDef)
        (found,) = [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == name]
        self.run(file, found)
        return self.pop(name)


def parts_of(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """What a statement at the top of a file gives a name to, and how; imports only of what is not Unsloth's own."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Assign):
        yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.Import):
        yield from ((one.asname or one.name, ast.copy_location(ast.Import([one]), node)) for one in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level and not str(node.module).startswith("unsloth"):
        for one in node.names:
            yield one.asname or one.name, ast.copy_location(ast.ImportFrom(node.module, [one], 0), node)


def unsloth_itself() -> Taken:
    """Unsloth's functions, with PEFT changed as Unsloth changes it."""
    unsloth, zoo = folder_of("unsloth"), folder_of("unsloth_zoo")
    package("unsloth_zoo").__path__ = [str(zoo)]
    from unsloth_zoo.peft_utils import get_peft_regex  # type: ignore[import-not-found]

    files = [unsloth / "models" / f"{name}.py" for name in ("vision", "llama", "_utils", *IMPORTED_FROM)]
    taken = Taken(
        [
            *files,
            unsloth / "import_fixes.py",
            *(zoo / f"{name}.py" for name in ("training_utils", "hf_utils", "utils")),
        ],
        __name__="unsloth.models.taken",
        __package__="unsloth.models",
        __version__="0",
        get_peft_regex=get_peft_regex,
        _get_peft_model=call_peft,
        # What it imports in one of two ways.
        PretrainedConfig=transformers.PretrainedConfig,
        AutoModelForVision2Seq=transformers.AutoModelForImageTextToText,
        # What has to do with memory and speed only.
        gc=types.SimpleNamespace(collect=lambda: None),
        FUSED_LORA_DROPOUT=True,
        _fast_lora=types.SimpleNamespace(FUSED_LORA_DROPOUT=True),
        fast_lora_init=contextlib.nullcontext,
        **{name: lambda *_, **__: None for name in WITHOUT},
    )
    for name in ("unsloth", "unsloth.kernels", "unsloth.models"):
        package(name)
    for name in ("kernels.fast_lora", *(f"models.{name}" for name in ("vision", *IMPORTED_FROM))):
        package(f"unsloth.{name}").__getattr__ = taken.__getitem__  # type: ignore[method-assign]
    taken["FastBaseModel"] = types.SimpleNamespace(get_peft_model=taken.method("FastBaseModel", "get_peft_model"))
    taken["FastLlamaModel"] = types.SimpleNamespace(get_peft_model=taken.method("FastLlamaModel", "get_peft_model"))

    from peft.utils import transformers_weight_conversion

    taken["_patch_peft_moe_target_conversion"](transformers_weight_conversion)
    return taken


def folder_of(package: str) -> Path:
    return Path(str(importlib.metadata.distribution(package).locate_file(package)))


def package(name: str) -> types.ModuleType:
    """An empty package under that name."""
    made = sys.modules[name] = types.ModuleType(name)
    made.__path__ = []
    return made


def own_types() -> frozenset[str]:
    """The types on which FastLanguageModel calls FastLlamaModel, which its loader tells one by one."""
    text = (folder_of("unsloth") / "models" / "loader.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r'^        (?:el)?if model_type == "(\w+)":', text, re.MULTILINE))


def done_by(taken: Taken, model: Any, owner: str, arguments: dict[str, Any], *, own: bool) -> dict[str, Any]:
    """What Unsloth does.

    Args:
        taken: Its functions.
        model: A model that no adapter was put on.
        owner: The class whose method is called.
        arguments: As the script has them.
        own: The loader chose the code that Unsloth has for the type.
    """
    os.environ["UNSLOTH_USE_NEW_MODEL"] = "0" if own else "1"
    method = taken["FastLlamaModel" if owner == "FastLanguageModel" else "FastBaseModel"].get_peft_model
    model.max_seq_length = 8
    model._saved_temp_tokenizer = None
    unchanged = LoraModel._create_and_replace  # changed while PEFT is called
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            method(model, **{"use_gradient_checkpointing": False, **arguments})
        except CalledError as called:
            trained(taken, called.model, own)
            trainable = sum(value.numel() for value in called.model.parameters() if value.requires_grad)
            return {"adapted": adapted_weights(called.model), "trainable": trainable}
        except NameError:  # something was not taken
            raise
        except Exception as error:  # whatever else it raises is the answer
            return {"error": f"{type(error).__name__}: {error}"[:300]}
        finally:
            LoraModel._create_and_replace = unchanged
    raise AssertionError("PEFT was not called")


def trained(taken: Taken, model: Any, own: bool) -> None:
    """Which parameters are trained is decided once more after PEFT."""
    taken["prepare_model_for_training"](
        model, use_gradient_checkpointing=False, use_reentrant=False, patch_modules_to_save=not own
    )
    if own:
        taken["_unfreeze_modules_to_save"](model)


def said_of(model: Any, asked: Any) -> dict[str, Any]:
    """What is said of a script here, in the form of `done_by`."""
    try:
        said = UNSLOTH.resolve(model, asked).resolution
    except ls.LorascopeError as error:
        return {"not covered": error.faults[0]}
    if said.refusal is not None:
        return {"error": str(said.refusal)}
    return {
        "adapted": {one.name: (one.rank, one.alpha, one.scale) for one in said.adapted},
        "trainable": said.trainable,
    }


def asked_of(model: Any) -> Iterator[tuple[str, str]]:
    """Every plan that the model has the weights for, with its script if it can be exported, and the scripts of users."""
    for rules, options in PLANS:
        what = f"plan {' '.join(rules)} {options}"
        try:
            made = plan(model, *rules, **options)
        except ls.LorascopeError:
            continue  # no such weights
        try:
            yield what, export(made, "unsloth")
        except ls.LorascopeError as error:
            yield f"{what}: {error.faults}", ""
    for loading, lines in (("", WRITTEN), ("load_in_8bit=True", SLOW)):
        for line in lines:
            owner, _, arguments = line.partition(":")
            loaded = f"model, tokenizer = {owner}.from_pretrained('folder', {loading})\n"
            yield f"{line} {loading}", f"{loaded}model = {owner}.get_peft_model(model, {arguments})\n"


def seen_in_configurations(taken: Taken) -> dict[str, Any]:
    """How many configurations there are, and in which Unsloth sees experts, or an encoder with a decoder, other than is said."""
    count = 0
    experts: list[str] = []
    encoder_decoders: list[str] = []
    for head in MODELS:
        for entry in architectures.entries(head):  # type: ignore[arg-type]
            try:
                config, model = entry.config(), load_builtin(entry.model_type, head)
            except Exception:  # not in the built-in models, or a default that transformers does not take
                continue
            count += 1
            if taken["is_moe_model"](types.SimpleNamespace(config=config)) != counts_experts(model):
                experts.append(entry.model_type)
            if (taken["_is_text_seq2seq_config"](config) or taken["_is_seq2seq_lm_config"](config)) and not is_refused(
                model
            ):
                encoder_decoders.append(entry.model_type)
    return {"configurations": count, "experts": experts, "encoder-decoders": encoder_decoders}


def is_refused(model: Any) -> bool:
    asked = UNSLOTH.read("FastModel.get_peft_model(model)", "script")
    return "not covered" in said_of(model, asked)


def main() -> None:
    """Takes the types to run; all without."""
    logging.disable(logging.CRITICAL)
    taken, own = unsloth_itself(), own_types()
    wanted = set(sys.argv[1:])
    packages = ("peft", "transformers", "unsloth", "unsloth_zoo")
    print(json.dumps({name: importlib.metadata.version(name) for name in packages}))
    print(json.dumps(seen_in_configurations(taken)))
    for head, types_of_it in MODELS.items():
        for name in types_of_it:
            if wanted and name not in wanted:
                continue
            module = few_layers(head, name)
            model = ls.inspect(module)
            for what, text in asked_of(model):
                row: dict[str, Any] = {"model": f"{head} {name}", "what": what}
                if text:
                    asked = UNSLOTH.read(text, "script")
                    owner = asked.settings["owner"]
                    arguments = {key: asked.settings[key] for key in asked.settings["given"]}
                    is_own = name in own and owner == "FastLanguageModel" and "load_in_8bit" not in text
                    row["said"] = said_of(model, asked)
                    with restored(module):
                        row["did"] = done_by(taken, module, owner, arguments, own=is_own)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
