"""What axolotl adapts: its own search, and its changes to PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Module
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
from lorascope.plans.verify import adapter_config
from lorascope.trainers.axolotl.schema import LORA, PEFT, SCHEMA, TITLE
from lorascope.trainers.protocol import Outcome, TrainerConfig, trainer_filter, without_lora
from lorascope.trainers.search_findings import MOST_NAMED, unseen_findings, unseen_weights

# axolotl 0.19.0, loaders/utils.py: the output embedding, which its search leaves out.
_OUTPUT_EMBEDDINGS: Mapping[str, str] = {"gpt_neox": "embed_out"}
_NOT_LINEAR = "LlamaLinearScalingRotaryEmbedding"
_CLIPPABLE = "Gemma4ClippableLinear"
# axolotl 0.19.0, utils/freeze.py.
_MULTIMODAL = frozenset(
    {
        "vision_tower",
        "vision_model",
        "vision_encoder",
        "embed_vision",
        "multi_modal_projector",
        "visual",
        "audio_tower",
        "audio_model",
        "embed_audio",
    }
)
# These hand the configuration to TRL's trainer, which wraps the model itself (loaders/model.py, _load_adapters).
_WRAPPED_LATER = ("dpo", "ipo", "kto")
_SEARCH = "lora_target_linear"


def resolve_axolotl(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What axolotl's `load_lora` adapts.

    Raises:
        LorascopeError: The file sets something of PEFT that the rules do not cover.
    """
    settings = given.settings
    adapter = settings.get("adapter")
    if adapter not in LORA:
        return without_lora(TITLE, "adapter", adapter or None, "lora")
    findings: list[Finding] = []
    config = adapter_config(
        {
            **SCHEMA.peft_arguments(settings),
            "init_lora_weights": settings.get("peft_init_lora_weights") or True,
            "target_modules": _target_modules(model, settings, findings),
            "target_parameters": _target_parameters(model, settings, findings),
            "modules_to_save": settings.get("lora_modules_to_save") or None,
            "bias": "none",
            "task_type": axolotl_task(model),
        }
    )
    resolution = _load(model, config, settings, findings)
    if settings.get("freeze_mm_modules"):
        resolution = _without_frozen(resolution, findings)
    if settings.get(_SEARCH):
        adapted = {weight.name for weight in resolution.adapted}
        unseen = [weight for weight in unseen_weights(model) if peft_name(model, weight) not in adapted]
        fix = "Name modules in lora_target_modules, parameters in lora_target_parameters: lorascope plan gives them."
        findings += unseen_findings(unseen, _SEARCH, fix)
    return Outcome(resolution, config, tuple(findings))


def axolotl_task(model: ModelMap) -> str:
    """PEFT's task type, by the class's name (loaders/adapter.py, _get_peft_task_type)."""
    if "SequenceClassification" in model.architecture:
        return "SEQ_CLS"
    return "TOKEN_CLS" if "TokenClassification" in model.architecture else "CAUSAL_LM"


# Search.


def linear_names(model: ModelMap) -> list[str]:
    """The last components that `lora_target_linear` finds, sorted (axolotl 0.19.0, loaders/adapter.py)."""
    names = {
        module.name.rpartition(".")[2]
        for module in model.modules
        if module.kind == "linear" or ("Linear" in module.class_name and module.class_name != _NOT_LINEAR)
    }
    if "Linear" in model.architecture:  # the root, whose name is empty
        names.add("")
    return sorted(names - {_output_embedding(model)})


def _output_embedding(model: ModelMap) -> str:
    return _OUTPUT_EMBEDDINGS.get(model.model_type, "lm_head")


def _target_modules(model: ModelMap, settings: Mapping[str, Any], findings: list[Finding]) -> str | list[str]:
    """The `target_modules` of axolotl; never None, so PEFT's defaults never apply."""
    given = settings.get("lora_target_modules") or []
    if not settings.get(_SEARCH):
        return given
    if isinstance(given, str):
        message = (
            f"lora_target_modules is the string {quoted(given)}; with lora_target_linear it becomes a name in a list, no "
            "longer a regular expression"
        )
        findings.append(trainer_filter("warning", _SEARCH, message, "Leave out one of the two."))
        given = [given]
    names = linear_names(model)
    shown = listed(names, 2 * MOST_NAMED)
    message = f"axolotl adapts every module that ends like its linear layers ({shown}), in towers too"
    if not names:
        message = "axolotl finds no linear layer"
    dropped = _output_embedding(model)
    if any(module.name.rpartition(".")[2] == dropped for module in model.modules):
        message += f", and leaves out {dropped}"
    fix = "Name the modules instead: lorascope plan gives them."
    findings.append(trainer_filter("note", _SEARCH, message, fix))
    odd = [quoted(name) for name in names if name.isdigit() or not name]
    if odd:
        message = (
            f"{listed(odd, MOST_NAMED)} are among these names; PEFT also finds them at the end of other modules' names"
        )
        findings.append(trainer_filter("warning", _SEARCH, message, fix))
    return sorted({*given, *names})


def _target_parameters(model: ModelMap, settings: Mapping[str, Any], findings: list[Finding]) -> str | list[str]:
    """The `target_parameters` of axolotl; with quantized experts, old names work too.

    Its own `_inject_parameters` (monkeypatch/moe_quant.py) is in place where lora_target_parameters or quantize_moe_experts
    is set. On plain parameters it finds what PEFT finds.
    """
    given = settings.get("lora_target_parameters") or []
    if isinstance(given, str) or not settings.get("quantize_moe_experts"):
        return given
    added = sorted({f"{module.name}.gate_up_proj" for module in model.modules if _is_renamed(module, given)})
    if added:
        message = f"quantize_moe_experts makes axolotl read gate_proj and up_proj as {len(added)} fused gate_up_proj"
        findings.append(trainer_filter("note", "lora_target_parameters", message, "Name mlp.experts.gate_up_proj."))
    return [*given, *added]


def _is_renamed(module: Module, entries: list[str]) -> bool:
    """An entry names half of a module's quantized gate_up_proj."""
    own = {name for name, _ in module.parameters}
    # It quantizes 3-D parameters with "expert" in their names.
    quantized = {n for n, shape in module.parameters if len(shape) >= 3 and "expert" in f"{module.name}.{n}".lower()}
    for entry in entries if "gate_up_proj" in quantized else ():
        path, _, leaf = entry.rpartition(".")
        is_path = module.name == path or module.name.endswith(f".{path}")
        if is_path and leaf in ("gate_proj", "up_proj") and leaf not in own:
            return True
    return False


# Changes in PEFT.


def _load(model: ModelMap, config: AdapterConfig, settings: Mapping[str, Any], findings: list[Finding]) -> Resolution:
    """What PEFT does, with axolotl's changes to it."""
    clippable = {module.name for module in model.modules if module.class_name == _CLIPPABLE}
    seen = _with_clippable(model, clippable) if clippable else model
    resolution = resolve(seen, config, PEFT)
    if resolution.refused_as("parameters-options") and config.lora_dropout and not config.target_parameters:
        # PEFT's rewrite for fused experts made target_parameters: axolotl then trains the experts without dropout.
        if settings.get("rl") in _WRAPPED_LATER:
            return resolution
        resolution = resolve(seen, dataclasses.replace(config, lora_dropout=0.0), PEFT)
        if resolution.refusal is None:
            message = (
                f"axolotl trains the fused experts without dropout, the other weights with lora_dropout "
                f"{config.lora_dropout:g}"
            )
            findings.append(trainer_filter("note", "lora_dropout", message, "Set lora_dropout: 0 to train all alike."))
    wrappers = [adapted.name for adapted in resolution.adapted if adapted.name in clippable]
    if wrappers:
        resolution = _redirected(resolution, clippable)
        message = f"axolotl adapts the linear layer inside each of {len(wrappers)} matched {_CLIPPABLE} modules"
        fix = "Nothing: that is what they hold."
        findings.append(trainer_filter("note", listed(wrappers, MOST_NAMED), message, fix))
    return resolution


def _with_clippable(model: ModelMap, clippable: set[str]) -> ModelMap:
    """The map with each wrapper in the form of its linear layer."""
    inner = model.module_by_name

    def as_linear(module: Module) -> Module:
        child = inner.get(f"{module.name}.linear")
        if module.name not in clippable or child is None:
            return module
        weight = tuple((name, shape) for name, shape in child.parameters if name == "weight")
        return dataclasses.replace(module, kind=child.kind, parameters=weight)

    return dataclasses.replace(model, modules=tuple(as_linear(module) for module in model.modules))


def _redirected(resolution: Resolution, clippable: set[str]) -> Resolution:
    """Adapters of wrappers, renamed to the layer inside, each layer once."""
    own = {adapted.name for adapted in resolution.adapted}
    kept: list[Adapted] = []
    twice = 0
    for adapted in resolution.adapted:
        name = f"{adapted.name}.linear" if adapted.name in clippable else adapted.name
        if name != adapted.name and name in own:
            twice += adapted.trainable
        else:
            kept.append(dataclasses.replace(adapted, name=name))
    kept.sort(key=lambda adapted: adapted.name)
    return dataclasses.replace(resolution, adapted=tuple(kept), trainable=resolution.trainable - twice)


def _without_frozen(resolution: Resolution, findings: list[Finding]) -> Resolution:
    """The resolution without the adapters that `freeze_mm_modules` freezes."""
    frozen = [adapted for adapted in resolution.adapted if _MULTIMODAL & set(adapted.name.split("."))]
    if not frozen:
        return resolution
    message = f"freeze_mm_modules freezes {len(frozen)} of the adapters: they are made and saved, but never trained"
    where = listed([adapted.name for adapted in frozen], MOST_NAMED)
    findings.append(trainer_filter("error", where, message, "Leave them out of the targets."))
    trainable = resolution.trainable - sum(adapted.trainable for adapted in frozen)
    return dataclasses.replace(resolution, trainable=trainable)
