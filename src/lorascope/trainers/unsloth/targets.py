"""What Unsloth's get_peft_model makes PEFT adapt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.matchers import ALL_LINEAR, all_linear_targets
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.verify import adapter_config
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.protocol import Outcome, TrainerConfig, stopped, trainer_filter
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.unsloth.peft import resolve_under_unsloth
from lorascope.trainers.unsloth.schema import FAST, HANDED_ON, SCOPE, TITLE, has_own_code
from lorascope.trainers.unsloth.search import (
    NothingToTrainError,
    Scope,
    counts_experts,
    expert_modules,
    expert_parameters,
    expert_words,
    has_expert_modules,
    is_in_layers,
    parameters_in_layers,
    parts_expression,
    with_expert_modules,
)

_NAMED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Types that it takes for an encoder with a decoder whatever their head (_is_text_seq2seq_config, _is_seq2seq_lm_config), and
# two whose layers it counts, and whose embeddings it ties, in ways that are not restated.
_ENCODER_DECODERS = (
    *("florence2", "vision-encoder-decoder"),
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mt5", "mvp"),
    *("pegasus", "plbart", "prophetnet", "t5", "t5gemma", "t5gemma2", "umt5"),
)
# Types that share the weight, and whose configuration says so of its language model alone, where Unsloth does not look.
_TIED_INSIDE = ("blip-2", "instructblip", "instructblipvideo")
# Types whose get_peft_model is FastDiffusionModel's: models/diffusion.py.
_DIFFUSING = ("diffusion_gemma", "diffusion_gemma4")
_EMBEDDINGS = ("embed_tokens", "lm_head")
_STOPPED = Reason("refused", "Unsloth stops: {why}")
# What FastLanguageModel gives for them where a model has no code of Unsloth's own.
_LANGUAGE_SCOPE = {**SCOPE, "finetune_vision_layers": False}


def resolve_unsloth(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What Unsloth makes PEFT adapt.

    Raises:
        LorascopeError: The model is of a kind that is not covered.
    """
    if reason := why_uncovered(model):
        raise LorascopeError(reason, where=model.model, hint="Check such a model in Unsloth itself.")
    return call_outcome(model, given.settings)


def why_uncovered(model: ModelMap) -> str:
    """Why a model is not covered here, or empty."""
    kind = ""
    if model.head == "seq2seq-lm" or model.model_type in _ENCODER_DECODERS:
        kind = "encoder-decoder models"
    elif {"thinker", "talker"} & {module.name for module in model.modules}:
        kind = "models of several models"
    elif model.model_type in _DIFFUSING:
        kind = "models that generate text by diffusion"
    return f"{TITLE}'s rules for {kind} are not covered here" if kind else ""


def is_embedding(name: str) -> bool:
    """A name that Unsloth trains in full instead of adapting."""
    return name.rpartition(".")[2] in _EMBEDDINGS


class _StopError(Exception):
    """Unsloth stops; the text says why."""


@dataclasses.dataclass(slots=True)
class _Targets:
    """Targets on their way through `get_peft_model`."""

    modules: str | tuple[str, ...] | None
    parameters: tuple[str, ...] | None
    saved: tuple[str, ...] | None
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def report(self, severity: Literal["warning", "note"], where: str, message: str, fix: str) -> None:
        """Adds a finding."""
        self.findings.append(trainer_filter(severity, where, message, fix))


def call_outcome(model: ModelMap, settings: Mapping[str, Any]) -> Outcome:
    """What a call of `get_peft_model` with all its arguments does."""
    own = has_own_code(settings["owner"], model, slow=settings["slow"])
    targets = _Targets(
        _as_tuple(settings["target_modules"]),
        _as_tuple(settings["target_parameters"], whole=True),
        _as_tuple(settings["modules_to_save"], whole=True),
    )
    try:
        config = _own_config(model, settings, targets) if own else _base_config(model, settings, targets)
        resolution = resolve_under_unsloth(model, config)
        if not own:
            resolution = _without_bare_parameters(model, resolution, targets)
    except (_StopError, NothingToTrainError, BadPatternError) as stop:
        return stopped(_STOPPED.about(why=str(stop)), targets.findings)
    return Outcome(resolution, config, tuple(targets.findings))


def _as_tuple(value: Any, *, whole: bool = False) -> Any:
    """A list as a tuple; a string as it is, unless `whole`."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,) if whole and isinstance(value, str) else value


def _own_config(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> AdapterConfig:
    """FastLlamaModel's `get_peft_model`: models/llama.py."""
    refused = [key for key in settings["given"] if key in SCOPE or key not in known_keys("unsloth")]
    refused += [key for key in ("task_type",) if key in settings["given"]]
    if refused:
        raise _StopError(f"get_peft_model hands {', '.join(refused)} to LoraConfig, which does not take that here")
    if targets.modules is None:
        if "target_modules" in settings["given"]:
            raise _StopError("target_modules is None, and it goes through the names. Leave it out, or give names")
        targets.modules = _NAMED
    _move_embeddings(targets)
    _tie(model, settings, targets)
    wrong = [name for name in targets.saved or () if not is_embedding(name) and not _are_norms(model, name)]
    if wrong:
        raise _StopError(
            f"modules_to_save has {listed(wrong, MOST_NAMED)}; here it takes lm_head, embed_tokens and norms only"
        )
    _add_experts(model, targets, targets.modules)
    layers = _within_layers(model, settings, targets)
    classifies = "Classification" in model.architecture
    return _config(settings, targets, layers, "SEQ_CLS" if classifies else "CAUSAL_LM")


def _base_config(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> AdapterConfig:
    """FastBaseModel's `get_peft_model`: models/vision.py."""
    defaults = _LANGUAGE_SCOPE if settings["owner"] == FAST else SCOPE
    switches = {key: settings.get(key, default) for key, default in defaults.items()}
    if settings["owner"] == FAST and targets.modules is None and "target_modules" not in settings["given"]:
        targets.modules = _NAMED
    if targets.modules == ALL_LINEAR:
        switches = dict.fromkeys(switches, True)
    scope = Scope(*switches.values())
    given = targets.modules
    if scope.language:
        _move_embeddings(targets)
    _tie(model, settings, targets)
    if targets.modules is None or targets.modules == ALL_LINEAR:
        targets.modules = parts_expression(model, scope)
        detected: str | tuple[str, ...] = targets.modules
        targets.report(
            "note",
            "target_modules",
            f"{TITLE} searches the layers to adapt: {', '.join(key for key, on in switches.items() if on)}",
            "Name the modules if you do not want that.",
        )
    else:
        detected = targets.modules
        if not isinstance(targets.modules, str) and (scope.narrows or scope.audio):
            names = targets.modules
            if has_expert_modules(model):
                raise LorascopeError(
                    "target_modules is filtered by finetune_…, on a model whose experts are modules of their own",
                    where=model.model,
                    hint="How Unsloth widens the names there is not covered here: give a regular expression.",
                )
            targets.modules = parts_expression(model, scope, names)
            whole = scope.mlp and scope.language
            detected = (given if isinstance(given, tuple) else names) if whole else targets.modules
            _report_filtered(model, names, targets, switches)
    _add_experts(model, targets, detected)
    layers = _within_layers(model, settings, targets)
    task = settings.get("task_type", "CAUSAL_LM")
    if task == "CAUSAL_LM" and not model.prepares_generation:
        task = None
        if settings["modules_to_save"] is None:
            _save_heads(model, targets)
    return _config(settings, targets, layers, task)


def _config(
    settings: Mapping[str, Any], targets: _Targets, layers: tuple[int, ...] | None, task: str | None
) -> AdapterConfig:
    pattern = settings["layers_pattern"]
    return adapter_config(
        {
            **{key: settings[key] for key in HANDED_ON.options if settings.get(key) is not None},
            **{key: settings[key] for key in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora")},
            "target_modules": targets.modules,
            "target_parameters": targets.parameters,
            "modules_to_save": targets.saved,
            "layers_to_transform": layers,
            "layers_pattern": None if layers is None and settings["layers_to_transform"] is not None else pattern,
            "task_type": task,
        }
    )


def _move_embeddings(targets: _Targets) -> None:
    """Embeddings and heads among the names go to `modules_to_save` (`_redirect_embedding_targets`)."""
    if targets.modules is None or isinstance(targets.modules, str):
        return
    names = tuple(dict.fromkeys(targets.modules))
    moved = [name for name in names if is_embedding(name)]
    targets.modules = tuple(name for name in names if name not in moved)
    if not moved:
        return
    targets.saved = (*(targets.saved or ()), *(name for name in moved if name not in (targets.saved or ())))
    targets.report(
        "warning",
        "target_modules",
        f"{TITLE} moves {', '.join(moved)} to modules_to_save: they are trained in full, not by adapters",
        "List them in modules_to_save if you want that, or leave them out.",
    )
    if not targets.modules and not targets.parameters:
        raise _StopError(f"{', '.join(moved)} are trained in full, and no other target is left")


def _tie(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> None:
    """Save a tied head and embedding once (`_drop_tied_output_module`)."""
    saved = {name.rpartition(".")[2]: name for name in targets.saved or () if is_embedding(name)}
    shared = {f"{model.input_embeddings}.weight", f"{model.output_embeddings}.weight"}
    tied = model.model_type not in _TIED_INSIDE and any(shared <= {*names} for names in model.ties)
    given = settings["ensure_weight_tying"]
    shares = tied and (len(saved) == len(_EMBEDDINGS) if given is None else bool(given))
    if shares and "embed_tokens" in saved:
        modules = [module.name for module in model.modules if module.name.rpartition(".")[2] == "embed_tokens"]
        if len(modules) != 1 and (not modules or "." in saved["embed_tokens"]):
            raise LorascopeError(
                f"modules_to_save has {saved['embed_tokens']}, which shares a weight, and {len(modules)} modules have that name",
                where=model.model,
                hint="How Unsloth and PEFT tie them is not covered here: give ensure_weight_tying=False.",
            )
    if shares and {"embed_tokens", "lm_head"} <= saved.keys():
        targets.saved = tuple(name for name in targets.saved or () if name != saved["lm_head"])
        targets.report(
            "note",
            "modules_to_save",
            f"{TITLE} has PEFT train one copy for embed_tokens and lm_head, which share a weight",
            "Give ensure_weight_tying=False for two.",
        )


def _save_heads(model: ModelMap, targets: _Targets) -> None:
    """Save the heads of a model that does not generate (`_trainable_head_modules`)."""
    backbone, dot, _ = model.input_embeddings.partition(".")
    if model.head not in ("sequence-classification", "masked-lm") or not dot:
        raise LorascopeError(
            "the model does not generate, and which heads Unsloth trains then is not covered here",
            where=model.model,
            hint="Give modules_to_save, or a task_type.",
        )
    inside = {m.name.rpartition(".")[2] for m in model.modules if m.name.startswith(f"{backbone}.")}
    tops = dict.fromkeys(m.name.partition(".")[0] for m in model.modules if m.parameters)
    heads = tuple(name for name in tops if name != backbone and name not in inside)
    if heads:
        targets.saved = (*heads, *(targets.saved or ()))
        message = (
            f"{TITLE} trains {', '.join(heads)} in full, because the model does not generate and no task_type is given"
        )
        targets.report("note", "modules_to_save", message, "Give modules_to_save=[] for adapters alone.")


def _without_bare_parameters(model: ModelMap, resolution: Resolution, targets: _Targets) -> Resolution:
    """The resolution without saved modules that have no `weight`.

    `prepare_model_for_training` trains a saved module only if it, or a module around it, has one.
    """
    names = [m.name for m in model.modules]
    weighted = {m.name for m in model.modules if any(parameter == "weight" for parameter, _ in m.parameters)}
    left: dict[str, int] = {}
    for root in resolution.saved:
        for module in model.modules:
            if module.name != root and not module.name.startswith(f"{root}."):
                continue
            above = [name for name in names if module.name == name or module.name.startswith(f"{name}.")]
            if not any(name in weighted and (name == root or name.startswith(f"{root}.")) for name in above):
                left[module.name] = sum(math.prod(shape) for _, shape in module.parameters)
    left = {name: count for name, count in left.items() if count}
    if left:
        message = (
            f"{TITLE} trains no parameters of {listed(tuple(left), MOST_NAMED)}, which are saved but have no weight"
        )
        targets.report("warning", "modules_to_save", message, "Leave them out of modules_to_save, or adapt them.")
    return dataclasses.replace(resolution, trainable=resolution.trainable - sum(left.values()))


def _are_norms(model: ModelMap, ending: str) -> bool:
    classes = [module.class_name for module in model.modules if module.name.endswith(ending)]
    return bool(ending and classes) and all("Norm" in name for name in classes)


def _add_experts(model: ModelMap, targets: _Targets, detected: str | Sequence[str]) -> None:
    """What Unsloth adds for experts where no `target_parameters` are given."""
    modules = expert_modules(model, detected)
    if targets.parameters is None:
        targets.parameters = expert_parameters(model, detected)
        if targets.parameters:
            targets.report(
                "note",
                "target_parameters",
                f"{TITLE} adds the experts: {', '.join(targets.parameters)}",
                "Give target_parameters=[] to leave them out."
                if isinstance(detected, str)
                else "Leave gate_proj, up_proj and down_proj out of target_modules: PEFT alone takes them for the experts.",
            )
        elif counts_experts(model) and expert_words(detected) and not modules and not has_expert_modules(model):
            message = f"{TITLE} finds no experts under the names that it searches, and trains none"
            targets.report("warning", "target_modules", message, "Name them in target_parameters.")
    if modules and targets.modules is not None:
        targets.modules = with_expert_modules(targets.modules, modules)
        targets.report(
            "note", "target_modules", f"{TITLE} adds {len(modules)} names of experts", "Leave out the MLP's names."
        )


def _within_layers(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> tuple[int, ...] | None:
    """Write layers into the targets; return those left to PEFT."""
    layers = settings["layers_to_transform"]
    layers = (layers,) if type(layers) is int else _as_tuple(layers)
    last, total = settings["finetune_last_n_layers"], model.dimensions.layers
    if last is not None and layers is None and total:
        layers = tuple(range(total - max(1, min(last, total)), total))
    if layers is None:
        return None
    pattern = settings["layers_pattern"]
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern or ())
    if targets.parameters:
        targets.parameters = parameters_in_layers(model, targets.parameters, layers, patterns)
    if not isinstance(targets.modules, str):
        return tuple(layers)
    names = [module.name for module in model.modules]
    if targets.modules.lower() == ALL_LINEAR:
        linear = all_linear_targets(model, None)
        names = [name for name in names if name in linear or name.rpartition(".")[2] in linear]
    else:
        matcher = compiled(targets.modules)
        names = [name for name in names if matcher.fullmatch(name)]
    targets.modules = tuple(name for name in names if is_in_layers(name, layers, patterns))
    return None


def _report_filtered(model: ModelMap, names: Sequence[str], targets: _Targets, switches: Mapping[str, bool]) -> None:
    """How many layers of those names the parts leave out."""
    matcher = compiled(str(targets.modules))
    ends = tuple(f".{name}" for name in names)
    named = [m.name for m in model.modules if m.kind == "linear" and f".{m.name}".endswith(ends)]
    dropped = [name for name in named if not matcher.fullmatch(name)]
    if dropped:
        off = ", ".join(key for key, on in switches.items() if not on and key != "finetune_audio_layers")
        targets.report(
            "warning",
            "target_modules",
            f"{TITLE} leaves out {len(dropped)} of {len(named)} layers of these names "
            f"({listed(dropped, MOST_NAMED)}): {off or 'its search does not match them'}",
            "Set what is False to True, or call FastModel, or give a regular expression, which is not filtered.",
        )
