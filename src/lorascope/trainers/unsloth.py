"""Unsloth: its `get_peft_model`, and what it makes PEFT adapt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.matchers import ALL_LINEAR, all_linear_targets
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.compiler import size_difference
from lorascope.plans.types import Plan
from lorascope.plans.verify import adapter_config
from lorascope.trainers.capabilities import Surface, fitted, surface_losses
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import named_by
from lorascope.trainers.python_lines import Name, PythonLines
from lorascope.trainers.python_text import (
    call_arguments,
    call_owner,
    call_text,
    calls_function,
    method_arguments,
    read_script,
)
from lorascope.trainers.unsloth_peft import resolve_under_unsloth
from lorascope.trainers.unsloth_search import (
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

_TITLE = "Unsloth"
_CALL = "get_peft_model"
_FAST = "FastLanguageModel"
_CLASSES = (_FAST, "FastModel", "FastVisionModel", "FastTextModel")
_SURFACE = Surface(title=_TITLE, peft=NEWEST)
# Types with code of Unsloth's own, whose get_peft_model is FastLlamaModel's: models/loader.py.
_OWN_TYPES = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
# With these arguments of from_pretrained it does not use that code.
_SLOW = ("load_in_8bit", "qat_scheme")
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
_MOST_NAMED = 4
_HINT = "Names and types are those of Unsloth's get_peft_model, and of peft.LoraConfig."

# The arguments of get_peft_model by which a part of the model is left out, with FastBaseModel's defaults.
_SCOPE: Mapping[str, bool] = {
    "finetune_vision_layers": True,
    "finetune_language_layers": True,
    "finetune_attention_modules": True,
    "finetune_mlp_modules": True,
    "finetune_audio_layers": False,
}
# What FastLanguageModel gives for them where a model has no code of Unsloth's own.
_LANGUAGE_SCOPE = {**_SCOPE, "finetune_vision_layers": False}
_DEFAULTS: Mapping[str, Any] = {
    "r": 16,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": None,
    "target_parameters": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "finetune_last_n_layers": None,
    "use_rslora": False,
    "modules_to_save": None,
    "ensure_weight_tying": None,
}
# Fields of LoraConfig that are handed on as they are.
_HANDED_ON = ("exclude_modules", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern", "use_dora")
# They change what is adapted, and are covered neither here nor by PEFT's rules.
_UNCOVERED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "trainable_token_indices",
    "use_bdlora",
)
# How a script makes a conversation of a row with an image and a text.
_CONVERSATION = '''

def conversation(row):
    """A row with an image and a text, as a conversation."""
    asked = [{"type": "text", "text": "Write down what the image shows."}, {"type": "image", "image": row["image"]}]
    answer = [{"type": "text", "text": row["text"]}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}

'''
_READ = (*_DEFAULTS, *_SCOPE, *_HANDED_ON, *_UNCOVERED, "task_type")


class Unsloth:
    """A Python script that calls Unsloth's `get_peft_model`.

    Run in the tests, with PEFT 0.21.2 and taken out of Unsloth 2026.10.9 and unsloth_zoo 2026.10.9, because Unsloth stops
    without a GPU: both `get_peft_model` up to PEFT's, what they call for names, experts, layers and embeddings, its change of
    PEFT's rewrite for fused experts, and what it then sets to be trained. Only read: which of both its loader chooses,
    loading itself, and training. Not covered and refused here: encoder-decoder models, models of several models
    (Qwen-Omni), models that generate text by diffusion, models without a known head that do not generate, and the lists of
    names that it filters on models whose experts are modules of their own. Not covered, and not told from a map: speech
    models, remote code, and vLLM (`fast_inference`).
    """

    name = "unsloth"
    title = _TITLE
    release = "2026.10.9"
    peft = NEWEST
    form: Form = "python"
    marks = frozenset({*_CLASSES, "unsloth", "finetune_language_layers", "use_gradient_checkpointing"})

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What of a plan Unsloth does not train, or makes PEFT do otherwise."""
        if fault := _uncovered(plan.model):
            return (f"all {len(plan.targets)} weights. {fault}",)
        lost = []
        ends = {plan.model.input_embeddings, plan.model.output_embeddings} - {""}
        dead = [t.weight.name for t in plan.targets if _is_embedding(t.weight.name) or t.weight.name in ends]
        if dead:
            lost.append(
                f"the adapters of {listed(dead, _MOST_NAMED)}. {_TITLE} trains embeddings and heads in full only, "
                "with modules_to_save"
            )
        lost += surface_losses(plan, _SURFACE)
        if not lost and _said(plan) is None:
            lost.append(f"exactly these weights. {_TITLE} makes PEFT adapt others of the same names too")
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The script's text."""
        model = plan.model
        config = _said(plan) or plan.config
        owner = _owner_for(model)
        arguments = peft_arguments(config)
        if _is_own(owner, model) or arguments.get("task_type") == "CAUSAL_LM":
            arguments.pop("task_type", None)
        elif "task_type" not in arguments:
            arguments["task_type"] = None
        if counts_experts(model) and "target_parameters" not in arguments:
            arguments["target_parameters"] = []
        remarks = {
            "target_modules": "A text is one regular expression for the whole name, which Unsloth does not filter."
            if isinstance(config.target_modules, str)
            else "",
            "target_parameters": "Given, so that Unsloth adds no experts of its own." if counts_experts(model) else "",
            "lora_dropout": "PEFT has no dropout on fused experts." if config.target_parameters else "",
        }
        script = PythonLines()
        script.comment(f"{_TITLE} {self.release}, PEFT {self.peft}.")
        script.comment(f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.")
        script.comment(named_by(model))
        script.blank()
        script.code("from unsloth import $owner  # before all others, which it changes\n", owner=Name(owner))
        script.code("from datasets import load_dataset\nfrom trl import SFTConfig, SFTTrainer\n")
        if not job.base:
            script.comment("Your model: a Hub id or a folder.")
        script.code("model, tokenizer = $owner.from_pretrained(", owner=Name(owner))
        script.code("    $base,\n    max_seq_length=2048,\n    load_in_4bit=False,\n)", base=job.base or PLACEHOLDER)
        script.code("model = $owner.get_peft_model(\n    model,", owner=Name(owner))
        for key, value in arguments.items():
            if remarks.get(key):
                script.comment(remarks[key], indent=4)
            script.code("    $key=$value,", key=Name(key), value=value)
        if not _is_own(owner, model):
            script.comment("All parts, so that Unsloth filters none of the names.", indent=4)
            for key, on in _SCOPE.items():
                script.code("    $key=$on,", key=Name(key), on=on)
        script.code('    use_gradient_checkpointing="unsloth",\n    random_state=0,\n)')
        script.code("model.print_trainable_parameters()\n")
        _write_training(script, owner, job)
        return script.text()

    def read(self, text: str, where: str) -> Asked:
        """The call of `get_peft_model` in a script.

        Raises:
            LorascopeError: There is none, or Unsloth or PEFT stops at its values.
        """
        script = read_script(text, where, _CALL)
        owner, count = call_owner(script, _CALL)
        unread = known_keys("unsloth") - set(_READ)
        given = call_arguments(script, (_CALL,), unread)
        faults = [*_faults(given), *number_faults(given)]
        if count > 1:
            faults.append(f"{_CALL} has {count} arguments without a name, of which only the model is read")
        if owner not in _CLASSES:
            faults.append(f"{_CALL} is called on {owner or 'nothing'}, not on {', '.join(_CLASSES)}")
        loading = method_arguments(script, _CLASSES, "from_pretrained")
        faults += _loading_faults(loading)
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        consequence = (
            f"{_FAST} stops at it on {', '.join(_OWN_TYPES)}, and everything else passes over it silently"
            if owner == _FAST
            else f"{owner} passes over it silently"
        )
        findings = list(unknown_key_findings("unsloth", given, where, consequence=consequence))
        if calls_function(script, "add_new_tokens"):
            said = "add_new_tokens makes Unsloth train embed_tokens and lm_head in full, which is not counted here"
            findings.append(Finding("trainer-filter", "warning", where, said, "List them in modules_to_save."))
        base = call_text(script, "from_pretrained", "model_name")
        slow = any(loading.get(key) for key in _SLOW)
        settings = {**_DEFAULTS, **given, "owner": owner, "given": tuple(given), "slow": slow}
        return Asked(base, settings, tuple(findings))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What Unsloth makes PEFT adapt.

        Raises:
            LorascopeError: The model is of a kind that is not covered.
        """
        if fault := _uncovered(model):
            raise LorascopeError(fault, where=model.model, hint="Check such a model in Unsloth itself.")
        outcome = _outcome(model, asked.settings)
        return dataclasses.replace(outcome, findings=(*asked.findings, *outcome.findings))


def _uncovered(model: ModelMap) -> str:
    """Why what Unsloth does with a model is not known here; empty if it is."""
    if model.head == "seq2seq-lm" or model.model_type in _ENCODER_DECODERS:
        return f"{_TITLE}'s rules for encoder-decoder models are not covered here"
    if {"thinker", "talker"} & {module.name for module in model.modules}:
        return f"{_TITLE}'s rules for models of several models are not covered here"
    if model.model_type in _DIFFUSING:
        return f"{_TITLE}'s rules for models that generate text by diffusion are not covered here"
    return ""


def _owner_for(model: ModelMap) -> str:
    """The class whose `get_peft_model` filters nothing on a model."""
    if model.model_type in _OWN_TYPES:
        return _FAST
    return "FastVisionModel" if model.head == "image-text-to-text" else "FastModel"


def _is_own(owner: str, model: ModelMap, *, slow: bool = False) -> bool:
    """The call ends in FastLlamaModel's `get_peft_model`, not in FastBaseModel's."""
    return owner == _FAST and model.model_type in _OWN_TYPES and not slow


def _is_embedding(name: str) -> bool:
    return name.rpartition(".")[2] in _EMBEDDINGS


# Writing.


def _said(plan: Plan) -> AdapterConfig | None:
    """The configuration with which Unsloth does the plan, or None."""
    # Unsloth keeps PEFT from rewriting the names of experts.
    kept = dataclasses.replace(plan, model=dataclasses.replace(plan.model, moe_conversion=""))
    sizes = {peft_name(plan.model, t.weight): (t.rank, t.alpha) for t in plan.targets}
    owner = _owner_for(plan.model)
    for config in (plan.config, fitted(plan, _SURFACE), fitted(kept, _SURFACE)):
        if config is None:
            continue
        parameters = config.target_parameters or (() if counts_experts(plan.model) else None)
        config = dataclasses.replace(config, target_parameters=parameters)
        settings = {**_DEFAULTS, **{field: getattr(config, field) for field in _fields()}}
        if not _is_own(owner, plan.model):
            settings |= {**_SCOPE, "task_type": config.task_type}
        resolution = _outcome(plan.model, {**settings, "owner": owner, "given": (), "slow": False}).resolution
        if resolution.refusal is None and not size_difference(resolution, sizes):
            return config
    return None


def _fields() -> tuple[str, ...]:
    mine = {field.name for field in dataclasses.fields(AdapterConfig)}
    return tuple(key for key in (*_DEFAULTS, *_HANDED_ON) if key in mine)


def _write_training(script: PythonLines, owner: str, job: Job) -> None:
    """The lines that train: on texts, or on images with texts."""
    images = owner == "FastVisionModel"
    if images:
        script.code("from unsloth.trainer import UnslothVisionDataCollator\n")
    if not job.data:
        columns = "image and text" if images else "messages"
        script.comment(f"Your data: a Hub id, a folder or a file, with the columns {columns}.")
    data = job.data or ("unsloth/LaTeX_OCR" if images else "trl-lib/Capybara")
    if job.data.endswith((".json", ".jsonl")):
        script.code('rows = load_dataset("json", data_files=$data, split="train")', data=data)
    else:
        script.code('rows = load_dataset($data, split="train")', data=data)
    if images:
        script.code(_CONVERSATION)
    script.code("trainer = SFTTrainer(\n    model=model,\n    processing_class=tokenizer,")
    if images:
        script.code("    train_dataset=[conversation(row) for row in rows],")
        script.code("    data_collator=UnslothVisionDataCollator(model, tokenizer),\n    args=SFTConfig(")
        script.code(
            '        output_dir=$output, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True},',
            output=job.output,
        )
    else:
        script.code(
            '    train_dataset=rows.map(lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)}),'
        )
        script.code('    args=SFTConfig(\n        output_dir=$output, dataset_text_field="text",', output=job.output)
    script.code(
        "        per_device_train_batch_size=2, gradient_accumulation_steps=4, num_train_epochs=1, learning_rate=2e-4,"
    )
    script.code("    ),\n)\ntrainer.train()\nmodel.save_pretrained($output)", output=job.output)


# Reading.


def _faults(given: Mapping[str, Any]) -> Iterator[str]:
    """What Unsloth itself stops at; what PEFT does is checked by its rules."""
    rank = given.get("r", 16)
    if type(rank) is not int or rank < 1:
        yield f"r is {quoted(rank)}, not a whole number above 0"
    for key in ("target_modules", "modules_to_save", "exclude_modules", "layers_pattern"):
        value = given.get(key)
        texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        if value is not None and not texts and not isinstance(value, str):
            yield f"{key} is {quoted(value)}, not a list of texts"
    parameters = given.get("target_parameters")
    listed_texts = isinstance(parameters, list | tuple) and all(isinstance(item, str) for item in parameters)
    if parameters is not None and not listed_texts:
        yield f"target_parameters is {quoted(parameters)}, not a list of texts"
    layers = given.get("layers_to_transform")
    numbers = isinstance(layers, list | tuple) and all(type(item) is int for item in layers)
    if layers is not None and type(layers) is not int and not numbers:
        yield f"layers_to_transform is {quoted(layers)}, not a list of whole numbers"
    last = given.get("finetune_last_n_layers")
    if last is not None and type(last) is not int:
        yield f"finetune_last_n_layers is {quoted(last)}, not a whole number"
    for key in (*_SCOPE, "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"):
        if not isinstance(given.get(key, False), bool):
            yield f"{key} is {quoted(given[key])}, not True or False"
    yield from (f"{key} is set, which is not covered here" for key in _UNCOVERED if given.get(key))


def _loading_faults(loading: Mapping[str, Any]) -> Iterator[str]:
    """What `from_pretrained` is given that changes what `get_peft_model` does."""
    for key in ("full_finetuning", *_SLOW):
        if loading.get(key) is ...:
            yield f"{key} of from_pretrained is no value written out, and it changes what {_CALL} does"
    if loading.get("full_finetuning") not in (None, False, ...):
        yield f"full_finetuning of from_pretrained makes {_TITLE} train every weight and pass over {_CALL}"


# Resolving.


_STOPPED = Reason("refused", "{title} stops: {why}")


class _StopError(Exception):
    """Unsloth stops; the text says why."""


@dataclasses.dataclass(slots=True)
class _Targets:
    """Targets on their way through `get_peft_model`, and what happened to them."""

    modules: str | tuple[str, ...] | None
    parameters: tuple[str, ...] | None
    saved: tuple[str, ...] | None
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def say(self, severity: str, where: str, message: str, fix: str) -> None:
        self.findings.append(Finding("trainer-filter", severity, where, message, fix))  # type: ignore[arg-type]


def _outcome(model: ModelMap, settings: Mapping[str, Any]) -> Outcome:
    own = _is_own(settings["owner"], model, slow=settings["slow"])
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
        refusal = _STOPPED.about(title=_TITLE, why=str(stop))
        return Outcome(Resolution(refusal=refusal), None, tuple(targets.findings))
    return Outcome(resolution, config, tuple(targets.findings))


def _as_tuple(value: Any, *, whole: bool = False) -> Any:
    """A list as a tuple; a text as it is, or as the one element if it is meant whole."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return (value,) if whole and isinstance(value, str) else value


def _own_config(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> AdapterConfig:
    """FastLlamaModel's `get_peft_model`: models/llama.py."""
    refused = [key for key in settings["given"] if key in _SCOPE or key not in known_keys("unsloth")]
    refused += [key for key in ("task_type",) if key in settings["given"]]
    if refused:
        raise _StopError(f"get_peft_model hands {', '.join(refused)} to LoraConfig, which does not take that here")
    if targets.modules is None:
        if "target_modules" in settings["given"]:
            raise _StopError("target_modules is None, and it goes through the names. Leave it out, or give names")
        targets.modules = _NAMED
    _move_embeddings(targets)
    _tie(model, settings, targets)
    wrong = [name for name in targets.saved or () if not _is_embedding(name) and not _are_norms(model, name)]
    if wrong:
        raise _StopError(
            f"modules_to_save has {listed(wrong, _MOST_NAMED)}; here it takes lm_head, embed_tokens and norms only"
        )
    _add_experts(model, targets, targets.modules)
    layers = _within_layers(model, settings, targets)
    classifies = "Classification" in model.architecture
    return _config(settings, targets, layers, "SEQ_CLS" if classifies else "CAUSAL_LM")


def _base_config(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> AdapterConfig:
    """FastBaseModel's `get_peft_model`: models/vision.py."""
    defaults = _LANGUAGE_SCOPE if settings["owner"] == _FAST else _SCOPE
    said = {key: settings.get(key, default) for key, default in defaults.items()}
    if settings["owner"] == _FAST and targets.modules is None and "target_modules" not in settings["given"]:
        targets.modules = _NAMED
    if targets.modules == ALL_LINEAR:
        said = dict.fromkeys(said, True)
    scope = Scope(*said.values())
    asked = targets.modules
    if scope.language:
        _move_embeddings(targets)
    _tie(model, settings, targets)
    if targets.modules is None or targets.modules == ALL_LINEAR:
        targets.modules = parts_expression(model, scope)
        detected: str | tuple[str, ...] = targets.modules
        targets.say(
            "note",
            "target_modules",
            f"{_TITLE} searches the layers to adapt: {', '.join(key for key, on in said.items() if on)}",
            "Name the modules if that is not meant.",
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
            detected = (asked if isinstance(asked, tuple) else names) if whole else targets.modules
            _say_filtered(model, names, targets, said)
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
            **{key: settings[key] for key in _HANDED_ON if settings.get(key) is not None},
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
    moved = [name for name in names if _is_embedding(name)]
    targets.modules = tuple(name for name in names if name not in moved)
    if not moved:
        return
    targets.saved = (*(targets.saved or ()), *(name for name in moved if name not in (targets.saved or ())))
    targets.say(
        "warning",
        "target_modules",
        f"{_TITLE} moves {', '.join(moved)} to modules_to_save: they are trained in full, not by adapters",
        "List them in modules_to_save yourself if that is meant, or leave them out.",
    )
    if not targets.modules and not targets.parameters:
        raise _StopError(f"{', '.join(moved)} are trained in full, and no other target is left")


def _tie(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> None:
    """A head that shares its weight with a saved embedding is not copied a second time (`_drop_tied_output_module`)."""
    saved = {name.rpartition(".")[2]: name for name in targets.saved or () if _is_embedding(name)}
    shared = {f"{model.input_embeddings}.weight", f"{model.output_embeddings}.weight"}
    tied = model.model_type not in _TIED_INSIDE and any(shared <= {*names} for names in model.ties)
    asked = settings["ensure_weight_tying"]
    wanted = len(saved) == len(_EMBEDDINGS) if asked is None else bool(asked)
    if wanted and tied and "embed_tokens" in saved:
        found = [module.name for module in model.modules if module.name.rpartition(".")[2] == "embed_tokens"]
        if len(found) != 1 and (not found or "." in saved["embed_tokens"]):
            raise LorascopeError(
                f"modules_to_save has {saved['embed_tokens']}, which shares a weight, and {len(found)} modules are called so",
                where=model.model,
                hint="How Unsloth and PEFT tie them is not covered here: give ensure_weight_tying=False.",
            )
    if wanted and tied and "embed_tokens" in saved and "lm_head" in saved:
        targets.saved = tuple(name for name in targets.saved or () if name != saved["lm_head"])
        targets.say(
            "note",
            "modules_to_save",
            f"{_TITLE} has PEFT train one copy for embed_tokens and lm_head, which share a weight",
            "Give ensure_weight_tying=False for two.",
        )


def _save_heads(model: ModelMap, targets: _Targets) -> None:
    """What lies beside the backbone of a model that does not generate is trained in full (`_trainable_head_modules`)."""
    backbone, dot, _ = model.input_embeddings.partition(".")
    if model.head not in ("sequence-classification", "masked-lm") or not dot:
        raise LorascopeError(
            "the model does not generate, and what Unsloth takes for its heads then is not covered here",
            where=model.model,
            hint="Give modules_to_save, or a task_type.",
        )
    inside = {m.name.rpartition(".")[2] for m in model.modules if m.name.startswith(f"{backbone}.")}
    tops = dict.fromkeys(m.name.partition(".")[0] for m in model.modules if m.parameters)
    heads = tuple(name for name in tops if name != backbone and name not in inside)
    if heads:
        targets.saved = (*heads, *(targets.saved or ()))
        said = (
            f"{_TITLE} trains {', '.join(heads)} in full, because the model does not generate and no task_type is given"
        )
        targets.say("note", "modules_to_save", said, "Give modules_to_save=[] for adapters alone.")


def _without_bare_parameters(model: ModelMap, resolution: Resolution, targets: _Targets) -> Resolution:
    """In what is saved it trains modules that have a `weight`, with all in them (`prepare_model_for_training`)."""
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
        said = (
            f"{_TITLE} trains no parameters of {listed(tuple(left), _MOST_NAMED)}, which are saved but have no weight"
        )
        targets.say("warning", "modules_to_save", said, "Leave them out of modules_to_save, or adapt them.")
    return dataclasses.replace(resolution, trainable=resolution.trainable - sum(left.values()))


def _are_norms(model: ModelMap, ending: str) -> bool:
    found = [module.class_name for module in model.modules if module.name.endswith(ending)]
    return bool(ending and found) and all("Norm" in name for name in found)


def _add_experts(model: ModelMap, targets: _Targets, detected: str | Sequence[str]) -> None:
    """What Unsloth adds for experts where no `target_parameters` are given."""
    modules = expert_modules(model, detected)
    if targets.parameters is None:
        targets.parameters = expert_parameters(model, detected)
        if targets.parameters:
            targets.say(
                "note",
                "target_parameters",
                f"{_TITLE} adds the experts: {', '.join(targets.parameters)}",
                "Give target_parameters=[] to leave them out."
                if isinstance(detected, str)
                else "Leave gate_proj, up_proj and down_proj out of target_modules: PEFT alone takes them for the experts.",
            )
        elif counts_experts(model) and expert_words(detected) and not modules and not has_expert_modules(model):
            said = f"{_TITLE} finds no experts under the names that it looks for, and trains none"
            targets.say("warning", "target_modules", said, "Name them in target_parameters.")
    if modules and targets.modules is not None:
        targets.modules = with_expert_modules(targets.modules, modules)
        targets.say(
            "note", "target_modules", f"{_TITLE} adds {len(modules)} names of experts", "Leave out the MLP's names."
        )


def _within_layers(model: ModelMap, settings: Mapping[str, Any], targets: _Targets) -> tuple[int, ...] | None:
    """Writes layers into the targets where PEFT would not take them; the layers that are left to PEFT."""
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


def _say_filtered(model: ModelMap, names: Sequence[str], targets: _Targets, said: Mapping[str, bool]) -> None:
    """How many layers of those names the parts leave out."""
    matcher = compiled(str(targets.modules))
    ends = tuple(f".{name}" for name in names)
    hit = [m.name for m in model.modules if m.kind == "linear" and f".{m.name}".endswith(ends)]
    dropped = [name for name in hit if not matcher.fullmatch(name)]
    if dropped:
        off = ", ".join(key for key, on in said.items() if not on and key != "finetune_audio_layers")
        targets.say(
            "warning",
            "target_modules",
            f"{_TITLE} leaves out {len(dropped)} of {len(hit)} layers of these names "
            f"({listed(dropped, _MOST_NAMED)}): {off or 'its search does not match them'}",
            "Set what is False to True, or call FastModel, or give a regular expression, which is not filtered.",
        )
