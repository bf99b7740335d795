"""axolotl: its YAML, its own search for linear layers, and what it changes in PEFT."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Module
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
from lorascope.plans.types import Plan
from lorascope.plans.verify import adapter_config
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import Surface, fitted, surface_losses
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import named_by

_TITLE = "axolotl"
_PEFT = "0.20.0"
_SURFACE = Surface(title=_TITLE, peft=_PEFT, excludes=False, biases=("none",))
_LORA = ("lora", "qlora")
_HINT = "Names and types are those of https://docs.axolotl.ai/docs/config-reference.html"
_MOST_NAMED = 4

# What its schema makes of a value (utils/schemas/peft.py): the type in words, and whether a value becomes one.
_TEXTS = "a list of texts"
_KINDS: Mapping[str, str] = {
    "lora_r": "whole",
    "lora_alpha": "whole",
    "lora_dropout": "number",
    "lora_fan_in_fan_out": "truth",
    "lora_target_linear": "truth",
    "lora_target_modules": "text or texts",
    "lora_target_parameters": "text or texts",
    "lora_modules_to_save": "texts",
    "lora_rank_pattern": "sizes",
    "lora_alpha_pattern": "sizes",
    "peft_layers_to_transform": "wholes",
    "peft_layers_pattern": "texts",
    "peft_use_dora": "truth",
    "peft_use_rslora": "truth",
    "quantize_moe_experts": "truth",
    "freeze_mm_modules": "truth",
    "reward_model": "truth",
}
_SAID: Mapping[str, str] = {
    "whole": "a whole number",
    "number": "a number",
    "truth": "true or false",
    "text or texts": f"a text or {_TEXTS}",
    "texts": _TEXTS,
    "sizes": "keys with whole numbers above 0",
    "wholes": "a list of whole numbers",
}
# What it passes on to PEFT beside those, and what the rules do not cover.
_PASSED_ON: Mapping[str, str] = {
    "peft_layer_replication": "layer_replication",
    "peft_trainable_token_indices": "trainable_token_indices",
    "peft_ensure_weight_tying": "ensure_weight_tying",
}
_KEPT = (*_KINDS, *_PASSED_ON, "adapter", "rl", "lora_model_dir", "unfrozen_parameters", "plugins")
# pydantic's words for truth in its lax mode.
_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
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
_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
_NO_ADAPTER = Reason("no-adapter", "{title} makes no LoRA adapter: the file {adapter}. Set adapter: lora")


class Axolotl:
    """axolotl's YAML file.

    Run in the tests, with axolotl 0.19.0, PEFT 0.20.0 and transformers 5.16.1: its schema on every form that is written and
    on the values that are told from faults here, its `find_all_linear_names`, its `load_lora` with all that it changes in
    PEFT and its `freeze_mm_modules`, on models of many architectures. Only read: that training goes on with that model,
    what `rl`, `lora_model_dir`, `unfrozen_parameters` and `quantize_moe_experts` do (the last needs a GPU), and its plugins.
    """

    name = "axolotl"
    title = _TITLE
    release = "0.19.0"
    peft = _PEFT
    form: Form = "yaml"
    marks = frozenset(
        {
            "adapter",
            "base_model",
            "lora_r",
            "lora_target_linear",
            "micro_batch_size",
            "peft_use_dora",
            "peft_use_rslora",
            "peft_layers_to_transform",
            "lora_rank_pattern",
            "sequence_len",
            "type_of_model",
        }
    )

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What axolotl's keys cannot say of a plan."""
        lost = []
        if plan.model.head not in ("causal-lm", "image-text-to-text", "unknown"):
            lost.append(f"the kind of model ({plan.model.head}). axolotl trains language models")
        alphas = sorted({target.alpha for target in plan.targets if target.alpha != int(target.alpha)})
        if alphas:
            lost.append(f"the alpha {alphas[0]:g}. axolotl takes whole numbers")
        if not lost and not plan.model.prepares_generation:
            lost.append(
                f"the class {plan.model.architecture}. axolotl hands PEFT the task type CAUSAL_LM, which needs "
                "prepare_inputs_for_generation"
            )
        said = surface_losses(_as_handed(plan), _SURFACE)
        # That PEFT does not do the plan is no news where the model's kind or class is refused.
        return (*lost, *(loss for loss in said if not (lost and loss.startswith("exactly these weights"))))

    def write(self, plan: Plan, job: Job) -> str:
        """The YAML of a plan, for `axolotl train`."""
        config = fitted(_as_handed(plan), _SURFACE) or plan.config
        heading = [
            f"axolotl {self.release}: axolotl train THIS_FILE",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            named_by(plan.model, f"axolotl {self.release} runs transformers 5.16.1."),
        ]
        data = {"path": job.data or "mhenrichsen/alpaca_2k_test", "type": "alpaca"}
        if job.data.endswith((".json", ".jsonl", ".csv", ".parquet")):
            data["ds_type"] = job.data.rpartition(".")[2].replace("jsonl", "json")
        settings = {
            "base_model": job.base or PLACEHOLDER,
            **_settings_of(config),
            **dict.fromkeys(_KERNELS, False),
            "datasets": [data],
            "output_dir": job.output,
            "sequence_len": 2048,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "num_epochs": 1,
            "optimizer": "adamw_torch",
            "lr_scheduler": "cosine",
            "learning_rate": 0.0002,
            "bf16": "auto",
            "gradient_checkpointing": True,
        }
        remarks = {
            "base_model": "" if job.base else "Your model: a Hub id or a folder.",
            "lora_dropout": "PEFT has no dropout on fused experts, and axolotl refuses any beside lora_target_parameters."
            if config.target_parameters
            else "",
            "lora_target_modules": "A text, not a list, is one regular expression for the whole name."
            if isinstance(config.target_modules, str)
            else "",
            "lora_mlp_kernel": "Off, because axolotl turns them on by itself and they stop on architectures that they do not "
            "know. Faster where q, k, v or gate, up, down are all adapted.",
            "datasets": "" if job.data else "Your data, in one of axolotl's forms.",
        }
        return commented_yaml(heading, settings, {key: said for key, said in remarks.items() if said})

    def read(self, text: str, where: str) -> Asked:
        """An axolotl file, as its schema reads it.

        Raises:
            LorascopeError: It is no YAML, or axolotl's schema refuses it.
        """
        data = parse_yaml(text, where, "Mend the file; axolotl reads it with PyYAML too.")
        settings, faults = _checked(data)
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        base = data.get("base_model")
        return Asked(base if isinstance(base, str) else "", settings, tuple(_key_findings(data, settings, where)))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What axolotl's `load_lora` adapts.

        Raises:
            LorascopeError: The file sets something of PEFT that the rules do not cover.
        """
        settings = asked.settings
        adapter = settings.get("adapter")
        if adapter not in _LORA:
            said = f"trains with the adapter {adapter!r}" if adapter else "trains every weight of the model"
            return Outcome(Resolution(refusal=_NO_ADAPTER.about(title=_TITLE, adapter=said)), None, asked.findings)
        targets, of_modules = _targets(model, settings)
        parameters, of_parameters = _parameters(model, settings)
        config = adapter_config(
            {
                "r": settings["lora_r"],
                "lora_alpha": settings["lora_alpha"],
                "target_modules": targets,
                "target_parameters": parameters,
                "layers_to_transform": settings.get("peft_layers_to_transform"),
                "layers_pattern": settings.get("peft_layers_pattern"),
                "lora_dropout": settings["lora_dropout"],
                "fan_in_fan_out": bool(settings.get("lora_fan_in_fan_out")),
                "modules_to_save": settings.get("lora_modules_to_save") or None,
                "bias": "none",
                "task_type": _task_type(model),
                "use_dora": bool(settings.get("peft_use_dora")),
                "use_rslora": bool(settings.get("peft_use_rslora")),
                "rank_pattern": settings.get("lora_rank_pattern"),
                "alpha_pattern": settings.get("lora_alpha_pattern"),
                **{name: settings.get(key) for key, name in _PASSED_ON.items()},
            }
        )
        resolution, of_peft = _loaded(model, config, settings)
        resolution, of_freezing = _frozen(resolution, settings)
        unseen = _unseen(model, resolution) if settings.get("lora_target_linear") else ()
        findings = (*asked.findings, *of_modules, *of_parameters, *of_peft, *of_freezing, *unseen)
        return Outcome(resolution, config, findings)


def _as_handed(plan: Plan) -> Plan:
    """The plan with the task type that axolotl hands to PEFT."""
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=_task_type(plan.model)))


def _task_type(model: ModelMap) -> str:
    """By the class's name (loaders/adapter.py, _get_peft_task_type)."""
    if "SequenceClassification" in model.architecture:
        return "SEQ_CLS"
    return "TOKEN_CLS" if "TokenClassification" in model.architecture else "CAUSAL_LM"


def _settings_of(config: AdapterConfig) -> dict[str, Any]:
    """The keys of axolotl for a configuration, those at its defaults left out."""
    settings: dict[str, Any] = {
        "adapter": "lora",
        "lora_r": config.r,
        "lora_alpha": int(config.lora_alpha),
        "lora_dropout": float(config.lora_dropout),
        "lora_target_modules": config.target_modules,
        "lora_target_parameters": config.target_parameters,
        "peft_layers_to_transform": config.layers_to_transform,
        "peft_layers_pattern": config.layers_pattern,
        "lora_rank_pattern": dict(config.rank_pattern),
        "lora_alpha_pattern": {key: int(alpha) for key, alpha in config.alpha_pattern.items()},
        "peft_use_rslora": config.use_rslora,
        "peft_use_dora": config.use_dora,
        "lora_fan_in_fan_out": config.fan_in_fan_out,
    }
    always = ("adapter", "lora_r", "lora_alpha", "lora_dropout")
    return {key: value for key, value in settings.items() if key in always or value}


# Reading.


def _checked(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings after axolotl's schema, and everything that the schema refuses."""
    faults: list[str] = []
    settings: dict[str, Any] = {key: data[key] for key in _KEPT if data.get(key) is not None}
    for key, kind in _KINDS.items():
        if key not in settings:
            continue
        value = _CONVERT[kind](settings[key])
        if value is None:
            faults.append(f"{key} is {quoted(settings[key])}, not {_SAID[kind]}")
            del settings[key]
        else:
            settings[key] = value
    for key in ("adapter", "rl", "lora_model_dir"):
        if key in settings and not isinstance(settings[key], str):
            faults.append(f"{key} is {quoted(settings.pop(key))}, not a text")
    adapter = settings.get("adapter")
    settings.setdefault("lora_dropout", 0.0)
    if adapter in _LORA:
        missing = [key for key in ("lora_r", "lora_alpha") if data.get(key) is None]
        faults += [f"{key} is missing: axolotl has no default for it, and PEFT stops at none" for key in missing]
    faults += number_faults(settings)
    faults += _conflicts(data, settings)
    return settings, faults


def _conflicts(data: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What axolotl's validators refuse (utils/schemas/peft.py, config.py and validation.py)."""
    adapter = settings.get("adapter")
    if not adapter and not data.get("inference") and (data.get("load_in_4bit") or data.get("load_in_8bit")):
        yield "load_in_8bit or load_in_4bit is set without an adapter"
    if adapter == "qlora" and not data.get("merge_lora"):
        if not data.get("load_in_4bit"):
            yield "adapter is qlora, which axolotl takes with load_in_4bit: true only"
        yield from (
            f"adapter is qlora, which axolotl does not take with {key}"
            for key in ("load_in_8bit", "gptq")
            if data.get(key)
        )
    if settings.get("lora_target_parameters") and settings.get("lora_dropout"):
        yield (
            f"lora_dropout is {settings['lora_dropout']:g} beside lora_target_parameters: axolotl takes 0 only, because PEFT has "
            "no dropout on fused experts"
        )
    if settings.get("peft_layers_pattern") and not settings.get("peft_layers_to_transform"):
        yield "peft_layers_pattern is given without peft_layers_to_transform"
    if adapter and settings.get("peft_layers_to_transform") and settings.get("unfrozen_parameters"):
        yield "unfrozen_parameters and peft_layers_to_transform are both given"
    modules = settings.get("lora_target_modules")
    for entry in modules if isinstance(modules, list) else ():
        try:
            compiled(entry, "lora_target_modules")
        except BadPatternError as error:
            yield f"lora_target_modules has {quoted(entry)}, which is no regular expression ({error.diagnostic.values['why']}): axolotl compiles every entry"
    if settings.get("quantize_moe_experts"):
        if adapter not in _LORA:
            yield "quantize_moe_experts is set without adapter: lora or qlora"
        if settings.get("lora_target_linear"):
            yield "quantize_moe_experts and lora_target_linear are both set"
        if not (data.get("load_in_4bit") or data.get("load_in_8bit")):
            yield "quantize_moe_experts is set without load_in_4bit or load_in_8bit"


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value == value // 1 and abs(value) < 2**63 else None
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.0+)?\s*", value):
        return int(value.partition(".")[0])
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) and len(value) < _LONGEST_NUMBER else None
    except ValueError:
        return None


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return _TRUTHS.get(value.lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _text_or_texts(value: Any) -> str | list[str] | None:
    return value if isinstance(value, str) else _texts(value)


def _wholes(value: Any) -> list[int] | None:
    numbers = [_whole(item) for item in value] if isinstance(value, list) else [None]
    return None if None in numbers else [number for number in numbers if number is not None]


def _sizes(value: Any) -> dict[str, int] | None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    sizes = {key: _whole(size) for key, size in value.items()}
    return (
        {key: size for key, size in sizes.items() if size} if all((size or 0) > 0 for size in sizes.values()) else None
    )


_LONGEST_NUMBER = 100
_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "whole": _whole,
    "number": _number,
    "truth": _truth,
    "text or texts": _text_or_texts,
    "texts": _texts,
    "sizes": _sizes,
    "wholes": _wholes,
}


def _key_findings(data: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    keys = [key for key in data if key != "lora_exclude_modules"]
    if settings.get("plugins"):
        passes = "axolotl passes over it without a word, unless a plugin knows it"
        yield from unknown_key_findings("axolotl", keys, where, consequence=passes, severity="note")
    else:
        passes = "axolotl passes over it without a word, unless it is an old one that a check of it names"
        yield from unknown_key_findings("axolotl", keys, where, consequence=passes)
    if "lora_exclude_modules" in data:
        yield Finding(
            "ignored-key",
            "error",
            where,
            "lora_exclude_modules is read by axolotl's loader and no key of its schema, so it is dropped before: nothing is "
            "excluded",
            "Write lora_target_modules as one regular expression that leaves those modules out.",
        )
    if settings.get("adapter") not in _LORA:
        keys = [key for key in data if key.startswith(("lora_", "peft_"))]
        if keys:
            said = f"without adapter: lora there is no effect of {listed(keys, _MOST_NAMED)}"
            yield Finding("ignored-key", "error", where, said, "Set adapter: lora")
    if settings.get("lora_model_dir"):
        said = "lora_model_dir is set: axolotl goes on with that adapter, whose adapter_config.json counts instead of this file"
        yield Finding("ignored-key", "warning", where, said, "Check that folder instead: lorascope check SOURCE FOLDER")
    if settings.get("unfrozen_parameters"):
        said = "unfrozen_parameters freezes every other parameter after the adapters are made, theirs too; it is not counted here"
        yield Finding("trainer-filter", "warning", where, said, "Leave it out when you train an adapter.")
    if settings.get("plugins"):
        said = f"plugins may change the model or the adapters; {listed(map(str, _as_list(settings['plugins'])), _MOST_NAMED)} are not read"
        yield Finding("trainer-filter", "note", where, said, "Compare with the adapter that comes out.")


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


# Targets.


def linear_names(model: ModelMap) -> list[str]:
    """The last components that `lora_target_linear` finds, sorted (axolotl 0.19.0, loaders/adapter.py)."""
    found = {
        module.name.rpartition(".")[2]
        for module in model.modules
        if module.kind == "linear" or ("Linear" in module.class_name and module.class_name != _NOT_LINEAR)
    }
    if "Linear" in model.architecture:  # the root, whose name is empty
        found.add("")
    return sorted(found - {_OUTPUT_EMBEDDINGS.get(model.model_type, "lm_head")})


def _targets(model: ModelMap, settings: Mapping[str, Any]) -> tuple[str | list[str], list[Finding]]:
    """What axolotl gives to `target_modules`: never None, so that PEFT's defaults never apply."""
    given = settings.get("lora_target_modules") or []
    if not settings.get("lora_target_linear"):
        return given, []
    findings = []
    if isinstance(given, str):
        said = f"lora_target_modules is the text {quoted(given)}; beside lora_target_linear it becomes a name in a list, no longer a regular expression"
        findings.append(Finding("trainer-filter", "warning", "lora_target_linear", said, "Leave out one of the two."))
        given = [given]
    names = linear_names(model)
    said = (
        f"axolotl adapts everything that ends as its linear layers do ({listed(names, 2 * _MOST_NAMED)}), in towers too"
    )
    if not names:
        said = "axolotl finds no linear layer"
    dropped = _OUTPUT_EMBEDDINGS.get(model.model_type, "lm_head")
    if any(module.name.rpartition(".")[2] == dropped for module in model.modules):
        said += f", and leaves out {dropped}"
    fix = "Name the modules instead: lorascope plan gives them."
    odd = [name for name in names if name.isdigit() or not name]
    findings.append(Finding("trainer-filter", "note", "lora_target_linear", said, fix))
    if odd:
        said = f"among them is {listed([quoted(name) for name in odd], _MOST_NAMED)}, which PEFT also finds at the end of other modules' names"
        findings.append(Finding("trainer-filter", "warning", "lora_target_linear", said, fix))
    return sorted({*given, *names}), findings


def _unseen(model: ModelMap, resolution: Resolution) -> Iterator[Finding]:
    """What `lora_target_linear` passes over although it is a weight like those of linear layers."""
    adapted = {one.name for one in resolution.adapted}
    left = [w for w in model.weights if w.kind in ("conv1d", "parameter") and peft_name(model, w) not in adapted]
    if left:
        kinds = sorted({"Conv1D modules" if weight.kind == "conv1d" else "bare parameters" for weight in left})
        said = f"axolotl goes by modules' classes and does not see these {len(left)} weights, which are {' and '.join(kinds)}"
        fix = "Name modules in lora_target_modules, parameters in lora_target_parameters: lorascope plan gives them."
        yield Finding("trainer-filter", "warning", listed([w.name for w in left], _MOST_NAMED), said, fix)


def _parameters(model: ModelMap, settings: Mapping[str, Any]) -> tuple[str | list[str], list[Finding]]:
    """What PEFT looks for among parameters: with quantized experts axolotl takes old names for the fused ones, too.

    Its own `_inject_parameters` (monkeypatch/moe_quant.py) is in place where lora_target_parameters or quantize_moe_experts
    is set. On plain parameters it finds what PEFT finds.
    """
    given = settings.get("lora_target_parameters") or []
    if isinstance(given, str) or not settings.get("quantize_moe_experts"):
        return given, []
    added = set()
    for module in model.modules:
        # What it quantizes on loading: 3-D parameters with "expert" in their names.
        held = {
            name for name, shape in module.parameters if len(shape) >= 3 and "expert" in f"{module.name}.{name}".lower()
        }
        for entry in given:
            path, _, leaf = entry.rpartition(".")
            if not held or not (module.name == path or module.name.endswith(f".{path}")):
                continue
            if (
                leaf not in {name for name, _ in module.parameters}
                and leaf in ("gate_proj", "up_proj")
                and "gate_up_proj" in held
            ):
                added.add(f"{module.name}.gate_up_proj")
    if not added:
        return given, []
    said = f"quantize_moe_experts makes axolotl take gate_proj and up_proj for {len(added)} fused gate_up_proj"
    return [*given, *sorted(added)], [
        Finding("trainer-filter", "note", "lora_target_parameters", said, "Name mlp.experts.gate_up_proj.")
    ]


# What it changes in PEFT.


def _loaded(model: ModelMap, config: AdapterConfig, settings: Mapping[str, Any]) -> tuple[Resolution, list[Finding]]:
    findings: list[Finding] = []
    clippable = {module.name for module in model.modules if module.class_name == _CLIPPABLE}
    seen = _with_clippable(model, clippable) if clippable else model
    resolution = resolve(seen, config, _PEFT)
    if resolution.refused_as("parameters-options") and config.lora_dropout and not config.target_parameters:
        # PEFT's rewrite for fused experts made target_parameters: axolotl then lets the experts go without dropout.
        if settings.get("rl") in _WRAPPED_LATER:
            return resolution, findings
        resolution = resolve(seen, dataclasses.replace(config, lora_dropout=0.0), _PEFT)
        if resolution.refusal is None:
            said = f"the fused experts train without lora_dropout {config.lora_dropout:g}, the other weights with it: axolotl changes PEFT so"
            findings.append(
                Finding("trainer-filter", "note", "lora_dropout", said, "Set lora_dropout: 0 to train all alike.")
            )
    redirected = [one for one in resolution.adapted if one.name in clippable]
    if redirected:
        resolution = _redirected(resolution, clippable)
        said = f"{len(redirected)} {_CLIPPABLE} modules are matched, and axolotl adapts the linear layer within each"
        findings.append(
            Finding(
                "trainer-filter",
                "note",
                listed([one.name for one in redirected], _MOST_NAMED),
                said,
                "Nothing: that is what they hold.",
            )
        )
    return resolution, findings


def _with_clippable(model: ModelMap, clippable: set[str]) -> ModelMap:
    """The map as PEFT sees it after axolotl's change: such a module can be adapted as if it were its linear layer."""
    inner = model.module_by_name

    def as_linear(module: Module) -> Module:
        child = inner.get(f"{module.name}.linear")
        if module.name not in clippable or child is None:
            return module
        weight = tuple((name, shape) for name, shape in child.parameters if name == "weight")
        return dataclasses.replace(module, kind=child.kind, parameters=weight)

    return dataclasses.replace(model, modules=tuple(as_linear(module) for module in model.modules))


def _redirected(resolution: Resolution, clippable: set[str]) -> Resolution:
    """Adapters of the wrapping modules under the names of what they wrap; where both are matched, the inner counts."""
    own = {one.name for one in resolution.adapted}
    kept: list[Adapted] = []
    twice = 0
    for one in resolution.adapted:
        name = f"{one.name}.linear" if one.name in clippable else one.name
        if name != one.name and name in own:
            twice += one.trainable
        else:
            kept.append(dataclasses.replace(one, name=name))
    adapted = tuple(sorted(kept, key=lambda one: one.name))
    return dataclasses.replace(resolution, adapted=adapted, trainable=resolution.trainable - twice)


def _frozen(resolution: Resolution, settings: Mapping[str, Any]) -> tuple[Resolution, list[Finding]]:
    """Without the adapters that `freeze_mm_modules` freezes, which are made and saved and never trained."""
    if not settings.get("freeze_mm_modules"):
        return resolution, []
    dead = [one for one in resolution.adapted if _MULTIMODAL & set(one.name.split("."))]
    if not dead:
        return resolution, []
    said = f"freeze_mm_modules freezes {len(dead)} of the adapters: they are made and saved, and never trained"
    finding = Finding(
        "trainer-filter",
        "error",
        listed([one.name for one in dead], _MOST_NAMED),
        said,
        "Leave them out of the targets.",
    )
    return dataclasses.replace(resolution, trainable=resolution.trainable - sum(one.trainable for one in dead)), [
        finding
    ]
