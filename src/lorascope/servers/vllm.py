"""vLLM: its answers about an adapter, and the flags to set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.servers.factors import FileFactors
from lorascope.servers.facts import UNKNOWN_EXTRAS, Facts
from lorascope.servers.initializations import changes_base, describe_start
from lorascope.servers.types import Answer, Verdict
from lorascope.servers.vllm_names import Place, is_readable, vllm_places

_MOST_NAMED = 4
# Layers that every recorded release wraps wherever a class has them (RowParallelLinear, lora/layers).
_ALWAYS = frozenset({"o_proj", "down_proj"})
# Classes with a kv_b_proj that they call as a layer (model_executor/models/minicpm3.py); all others give it to MLAAttention.
_CALLS_KV_B = frozenset({"MiniCPM3ForCausalLM"})
# Keys of adapter_config.json that change what an adapter does, and what they are called.
_FEATURES = {
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
}


def vllm_answers(
    facts: Facts,
    model: ModelMap,
    config: AdapterConfig,
    resolution: Resolution,
    extras: Mapping[str, Any] | None,
    file: FileFactors,
) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """Every question with its answer, and the flags that the server needs.

    Args:
        facts: Of the release.
        model: The map of the model.
        config: The adapter's configuration.
        resolution: What PEFT adapts with it.
        extras: The other keys of `adapter_config.json`; None if they are unknown.
        file: What the adapter's file holds.
    """
    rank, flags = _rank(facts, config, resolution, file)
    answers = [_architecture(facts, model), rank, *_patterns(facts, config, resolution)]
    answers += _options(facts, config, extras)
    if config.bias != "none" and facts.rules["bias_flag"]:
        flags.append("--enable-lora-bias")
    answers += _saved(facts, config, resolution)
    answers += _tensor_answers(facts, config, file)
    if answers[0].answer != "no":
        targets, more = _targets(facts, model, file.names)
        answers += targets
        flags += more
    return tuple(answers), ("--enable-lora", *flags)


def _architecture(facts: Facts, model: ModelMap) -> Answer:
    name = model.architecture
    source = f"{facts.title}, model_executor/models/registry.py and the class"
    if name in facts.backend:
        return Answer("model", "yes", f"it runs {name} with transformers' own code, which takes adapters", source)
    row = facts.models.get(name)
    if row is None:
        reason = f"{name or 'the architecture'} is not in its registry; it may run it with transformers' own code"
        return Answer("model", "depends", reason, source)
    if not row["lora"]:
        return Answer("model", "no", f"{name} takes no adapters: its class has no SupportsLoRA", source)
    return Answer("model", "yes", f"{name} takes adapters", source)


def _rank(facts: Facts, config: AdapterConfig, resolution: Resolution, file: FileFactors) -> tuple[Answer, list[str]]:
    ranks = [config.r, *config.rank_pattern.values(), *(adapted.rank for adapted in resolution.adapted)]
    most = max([*ranks, *file.ranks.values()])
    source = f"{facts.title}, config/lora.py and lora/peft_helper.py"
    allowed = [rank for rank in facts.rules["ranks"] if rank >= most]
    if not allowed:
        greatest = max(facts.rules["ranks"])
        return Answer("rank", "no", f"rank {most} is above {greatest}, the maximum of --max-lora-rank", source), []
    least = min(allowed)
    return Answer("rank", "yes", f"rank {most} needs --max-lora-rank {least}", source), [f"--max-lora-rank {least}"]


def _patterns(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    if not config.rank_pattern and not config.alpha_pattern:
        return
    source = f"{facts.title}, lora/peft_helper.py"
    if "rank_pattern" in facts.rules["fields"]:
        yield Answer("patterns", "yes", "it reads rank_pattern and alpha_pattern as PEFT reads them", source)
        return
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    wrong = [adapted.name for adapted in resolution.adapted if abs(adapted.scale - scale) > 1e-6 * abs(scale)]
    if wrong:
        reason = (
            f"it ignores both patterns and scales every weight by {scale:.4g}, which is wrong for "
            f"{listed(wrong, _MOST_NAMED)}; 0.32.0 reads them"
        )
        yield Answer("patterns", "no", reason, source)
    else:
        reason = "it ignores both patterns; the scales are right without them, and unequal ranks were not tried"
        yield Answer("patterns", "depends", reason, source)


def _options(facts: Facts, config: AdapterConfig, extras: Mapping[str, Any] | None) -> Iterator[Answer]:
    """Options that change more than the factors, or one yes."""
    doubts = list(_refused_options(facts, config, extras or {}))
    if extras is None:
        doubts.append(("depends", UNKNOWN_EXTRAS))
    source = f"{facts.title}, lora/peft_helper.py"
    for answer, reason in doubts:
        yield Answer("options", answer, reason, source)
    if not doubts:
        yield Answer("options", "yes", "no option is set that it refuses or ignores", source)


def _refused_options(facts: Facts, config: AdapterConfig, extras: Mapping[str, Any]) -> Iterator[tuple[Verdict, str]]:
    rules = facts.rules
    if config.use_dora:
        yield (
            "no",
            "it refuses use_dora, for it has no place for DoRA's magnitudes; train without DoRA, or merge the adapter",
        )
    for key, on in (("bias", config.bias != "none"), ("lora_bias", config.lora_bias)):
        if on and rules["bias_flag"]:
            yield "depends", f"biases ({key}) need --enable-lora-bias, and were not tried"
        elif on:
            yield "no", f"it refuses adapters with a bias ({key})"
    start = extras.get("init_lora_weights", config.init_lora_weights)
    if changes_base(start):
        verb = "refuses" if "init_lora_weights" in rules["fields"] else "ignores"
        yield "no", f"it {verb} {describe_start(start)}"
    for key, called in _FEATURES.items():
        if extras.get(key) and key in rules["fields"]:
            yield "no", f"it refuses {key} ({called})"
        elif extras.get(key):
            yield "depends", f"it ignores {key} ({called}) and loads the adapter without"
    if extras.get("trainable_token_indices"):
        yield "no", "it refuses the names of the tensors that trainable_token_indices trains"


def _saved(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    names = dict.fromkeys([*(config.modules_to_save or ()), *(n.rpartition(".")[2] for n in resolution.saved)])
    if not names:
        return
    source = f"{facts.title}, lora/peft_helper.py and lora/model_manager.py"
    refused = [name for name in names if name not in facts.rules["saved"]]
    if refused:
        but = f" other than {' and '.join(facts.rules['saved'])}" if facts.rules["saved"] else ""
        reason = (
            f"it refuses modules_to_save{but}: {', '.join(refused[:_MOST_NAMED])}; adapt them, or merge the adapter"
        )
        yield Answer("saved modules", "no", reason, source)
    else:
        reason = (
            f"it takes a trained {' or '.join(names)} only where it serves the model as a classifier with such a head"
        )
        yield Answer("saved modules", "depends", reason, source)


def _tensor_answers(facts: Facts, config: AdapterConfig, file: FileFactors) -> Iterator[Answer]:
    """Tensors on which it raises by their names or shapes, and scales that the file does not go with."""
    # What the configuration trains besides factors has its answer under options and saved modules.
    names = [name for name in file.names if name not in file.announced]
    unreadable = sorted(name for name in names if not is_readable(name, facts.rules))
    if unreadable:
        reason = f"it raises at {listed(unreadable, _MOST_NAMED)}: no pair of factors has such a name"
        if not facts.rules["skips_base_embeddings"] and any(".base_layer." in name for name in unreadable):
            reason += "; 0.12.0 passes over base weights of the embeddings"
        yield Answer("tensors", "no", reason, f"{facts.title}, lora/utils.py (parse_fine_tuned_lora_name)")
    if file.unlike:
        first = file.unlike[0]
        reason = (
            f"it scales by the configuration's r and not by the file's: {listed(file.unlike, _MOST_NAMED)} has rank "
            f"{file.ranks[first]}, the configuration r={config.r}"
        )
        yield Answer("tensors", "depends", reason, f"{facts.title}, lora/peft_helper.py and lora/lora_model.py")


def _targets(facts: Facts, model: ModelMap, tensors: Iterable[str]) -> tuple[list[Answer], list[str]]:
    """Where the factors end up: weights, experts and towers separately."""
    row = facts.modules.get(model.architecture, {})
    if "modules" not in row:
        reason = f"the modules of {model.architecture or 'the model'} that take an adapter are not recorded"
        return [Answer("targets", "depends", reason, f"{facts.title}: its code was not run on this model")], []
    places = vllm_places(tensors, row)
    source = f"vLLM {facts.ran}: its own code ran on a model of transformers' default configuration"
    answers: list[Answer] = []
    flags: list[str] = []
    of: dict[str, list[Place]] = {}
    for place in places:
        of.setdefault(place.fate, []).append(place)
    if "refused" in of:
        reason = f"it raises at {_names(of['refused'])}: its model has no layer of that name that takes an adapter"
        answers.append(Answer("targets", "no", reason, source))
    if "dropped" in of:
        towers = "language" in row and any(not _in_language(place, row) for place in of["dropped"])
        why = "they are outside of its language model" if towers else "no layer of its own model has that name"
        reason = f"it loads {_names(of['dropped'])} and silently leaves it out: {why}"
        answers.append(Answer("targets", "no", reason, source))
    split = [place for place in of.get("taken", ()) if _is_split_at_load(model, place)]
    if split:
        of["taken"] = [place for place in of["taken"] if place not in split]
        reason = (
            f"it splits {_names(split)} when it loads the model and never calls it, so what was trained there is "
            "silently left out"
        )
        source_of_split = "vLLM 0.33.0, model_executor/layers/attention/mla_attention.py, read, not run"
        answers.append(Answer("targets", "no", reason, source_of_split))
    if of.get("taken"):
        answers.append(_taken(facts, model, of["taken"], source))
    if "tower" in of:
        flag = facts.rules["tower_flag"]
        reason = (
            f"it serves {_names(of['tower'])} with --enable-tower-connector-lora, and silently leaves it out otherwise"
            if flag
            else f"it has no adapters outside of the language model before 0.14.1: {_names(of['tower'])}"
        )
        answers.append(_elsewhere(facts, Answer("towers", "yes" if flag else "no", reason, source)))
        flags += ["--enable-tower-connector-lora"] if flag else []
    for fate in ("fused", "apart"):
        if fate in of:
            answer = _experts(facts, fate, of[fate], source)
            answers.append(answer)
            if answer.answer != "no" and fate == "apart":
                flags.append("--enable-mixed-moe-lora-format")
    return answers, flags


def _is_split_at_load(model: ModelMap, place: Place) -> bool:
    """The weight of multi-head latent attention that is taken apart and read, not called."""
    return place.place.endswith(".kv_b_proj") and model.architecture not in _CALLS_KV_B


def _taken(facts: Facts, model: ModelMap, places: list[Place], source: str) -> Answer:
    reason = f"it has a place for {_names(places)}"
    if model.basis == "names":
        reason += ", if the checkpoint has the names of the model's modules"
        return Answer("targets", "depends", reason, source)
    if facts.release == facts.ran:
        return Answer("targets", "yes", reason, source)
    row = facts.models.get(model.architecture, {})
    packed = row.get("packed", {})
    declared = {part for parts in packed.values() for part in parts} if isinstance(packed, dict) else set()
    declared |= {*row.get("embedding", ()), *_ALWAYS}
    others = [place for place in places if place.name.rpartition(".")[2] not in declared]
    alike = _alike(row, facts, model.architecture)
    if alike and not others:
        return Answer("targets", "yes", f"{reason}; {facts.release} declares the class alike", source)
    what = _names(others) if alike else "this"
    return Answer("targets", "depends", f"{reason}; {what} was not tried with {facts.release}", source)


def _alike(row: Mapping[str, Any], facts: Facts, architecture: str) -> bool:
    """A release declares a class like the one that ran, in names.

    A mapper that only stacks, as many classes got one in 0.28.0, renames nothing, as none does.
    """
    newest = facts.newest_models.get(architecture)
    if not row or newest is None:
        return False
    if "mapper" not in row and not facts.modules[architecture].get("mapper"):
        newest = {key: value for key, value in newest.items() if key != "mapper"}
    return row == newest


def _elsewhere(facts: Facts, answer: Answer) -> Answer:
    """The same answer, without a yes for untried releases."""
    if facts.release == facts.ran or answer.answer != "yes":
        return answer
    return Answer(answer.question, "depends", f"{answer.reason}; not tried with {facts.release}", answer.source)


def _experts(facts: Facts, fate: str, places: list[Place], source: str) -> Answer:
    """Two pairs of factors per layer: `experts.base_layer` (gate and up) and `experts` (down)."""
    names = {place.name for place in places}
    holders = {name.removesuffix(".base_layer") for name in names}
    partial = sorted(name for name in holders if not {name, f"{name}.base_layer"} <= names)
    if partial:
        reason = f"experts need both gate_up_proj and down_proj, and {listed(partial, _MOST_NAMED)} has one of them"
        return Answer("experts", "no", reason, source)
    if fate == "fused":
        return _elsewhere(facts, Answer("experts", "yes", f"it has a place for {_names(places)}", source))
    if not facts.rules["mixed_experts"]:
        reason = f"fused experts were not tried with {facts.release}: {_names(places)}; 0.22.1 has a flag"
        return Answer("experts", "depends", reason, f"{facts.title}, lora/model_manager.py")
    reason = (
        f"it refuses {_names(places)} unless it is started with --enable-mixed-moe-lora-format and each request for the "
        "adapter has is_3d_lora_weight, which was read, not tried"
    )
    return Answer("experts", "depends", reason, source)


def _in_language(place: Place, row: Mapping[str, Any]) -> bool:
    return any(place.place.startswith(prefix) for prefix in row["language"])


def _names(places: list[Place]) -> str:
    return listed((place.name for place in places), _MOST_NAMED)
