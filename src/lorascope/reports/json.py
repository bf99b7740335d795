"""What `--json` prints: a stable shape for machines, one entry per weight, nothing folded.

`null` stands for a fact or number that there is not.
"""

from __future__ import annotations

from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.types import Check
from lorascope.model.types import ModelMap, Role, Trace, Weight
from lorascope.names import fold
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.types import Adapted
from lorascope.plans.types import LeftOut, Plan
from lorascope.servers.types import Serving

Json = dict[str, Any]


def map_json(model: ModelMap) -> Json:
    """`inspect --json`: the model's figures and every weight of every component."""
    traces = {trace.weight: trace for trace in model.traces}
    return {
        "model": model_json(model),
        "weights": [{**_weight(model, weight), "trace": _trace(traces.get(weight.name))} for weight in model.weights],
    }


def plan_json(plan: Plan) -> Json:
    """`plan --json`: targets by the names that `inspect --json` gives, totals, what is left out, and PEFT's arguments."""
    return {
        "model": model_json(plan.model),
        "rules": [str(rule) for rule in plan.rules],
        "targets": [_target(target.adapted, target.weight.name) for target in plan.targets],
        "trainable": plan.resolution.trainable,
        "total": plan.model.dimensions.parameters,
        "left_out": [_omission(omission) for omission in plan.left_out],
        "unreachable": [{"name": weight.name, "reason": reason} for weight, reason in plan.unreachable],
        "notes": [str(note) for note in plan.notes],
        "peft": peft_arguments(plan.config),
    }


def check_json(check: Check) -> Json:
    """`check --json`: what is adapted, what that costs, the findings, and what a server takes."""
    return {
        "model": model_json(check.model),
        "subject": check.subject,
        "trainer": check.trainer or None,
        "peft": check.peft or None,
        "targets": [_target(one, one.name) for one in check.resolution.adapted],
        "saved": list(check.resolution.saved),
        "trainable": check.resolution.trainable,
        "total": check.model.dimensions.parameters,
        "matters": check.matters,
        "findings": [dataclasses.asdict(finding) for finding in check.findings],
        "serving": serving_json(check.serving) if check.serving else None,
    }


def serving_json(serving: Serving) -> Json:
    """`--serve`: every question with its answer."""
    return {**dataclasses.asdict(serving), "flags": list(serving.flags)}


def model_json(model: ModelMap) -> Json:
    """The model and its figures, as every command prints them."""
    dimensions = model.dimensions
    return {
        "id": model.model,
        "model_type": model.model_type,
        "architecture": model.architecture,
        "head": model.head,
        "source": model.source,
        "hidden_size": dimensions.hidden_size,
        "intermediate_size": dimensions.intermediate_size,
        "num_layers": dimensions.layers,
        "num_attention_heads": dimensions.attention_heads,
        "num_key_value_heads": dimensions.key_value_heads,
        "num_experts": dimensions.experts,
        "num_active_experts": dimensions.active_experts,
        "parameters": dimensions.parameters,
        "transformers": model.versions.get("transformers"),
        "commit": model.versions.get("commit"),
        "basis": model.basis,
        "unexplained": list(model.unexplained),
        "notes": list(model.notes),
    }


def _weight(model: ModelMap, weight: Weight) -> Json:
    out_features, in_features = weight.shape[-2:]
    if weight.kind == "embedding":  # stored (entries, width), and read from the former to the latter
        out_features, in_features = in_features, out_features
    reason = model.refusal or obstacle(model, weight)
    return {
        "name": weight.name,
        "kind": weight.kind,
        **_role(weight.role),
        "layer": weight.layer,
        "in_features": in_features,
        "out_features": out_features,
        "experts": weight.shape[0] if len(weight.shape) == 3 else None,
        "basis": model.basis,
        "quantization": weight.quantization or None,
        "adaptable": not reason,
        "reason": reason or None,
    }


def _role(role: Role) -> Json:
    return {fact: value or None for fact, value in dataclasses.asdict(role).items()}


def _trace(trace: Trace | None) -> Json | None:
    if trace is None:
        return None
    return {
        "named": _role(trace.named),
        "guess": trace.guess,
        "flow": _role(trace.flow) if trace.flow is not None else None,
        "status": trace.status,
        "evidence": trace.evidence,
        "confidence": trace.confidence,
        "disagrees": trace.disagrees,
    }


def _target(adapted: Adapted, name: str) -> Json:
    return {
        "name": name,
        "rank": adapted.rank,
        "alpha": adapted.alpha,
        "scale": adapted.scale,
        "trainable": adapted.trainable,
    }


def _omission(omission: LeftOut) -> Json:
    return {
        "roles": list(dict.fromkeys(str(weight.role) for weight in omission.weights)),
        "names": fold(weight.name for weight in omission.weights),
        "weights": len(omission.weights),
        "parameters": omission.parameters,
    }
