"""Results as JSON, one entry per weight.

`null` stands for what a model or result does not have. `docs/json.md` is the contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.types import Check
from lorascope.model.types import ModelMap, Role, Trace, Weight
from lorascope.names import fold
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.reach import Reach, weight_reaches
from lorascope.peft_rules.types import Adapted
from lorascope.plans.types import LeftOut, Plan
from lorascope.reports.findings import finding_json, gaps_json
from lorascope.servers.types import Serving

Json = dict[str, Any]

# Of the keys and their meanings. Keys that are added do not change it; all other changes do, see docs/json.md.
SCHEMA = 2


def map_json(model: ModelMap) -> Json:
    """`inspect --json`: the model and every weight of every component."""
    traces = {trace.weight: trace for trace in model.traces}
    reaches = weight_reaches(model)
    return {
        "schema": SCHEMA,
        "gaps": gaps_json(model),
        "model": model_json(model),
        "weights": [
            {**_weight(model, weight, reaches[weight.name]), "trace": _trace(traces.get(weight.name))}
            for weight in model.weights
        ],
    }


def plan_json(plan: Plan) -> Json:
    """`plan --json`: targets, totals, what is left out, PEFT's arguments."""
    return {
        "schema": SCHEMA,
        "gaps": gaps_json(plan.model),
        "model": model_json(plan.model),
        "rules": [str(rule) for rule in plan.rules],
        "targets": [_target(target.adapted, target.weight.name) for target in plan.targets],
        "trainable": plan.resolution.trainable,
        "total": plan.model.dimensions.parameters,
        "left_out": [_omission(omission) for omission in plan.left_out],
        "unreachable": [{"name": weight.name, "reason": str(reason)} for weight, reason in plan.unreachable],
        "notes": notes_json(plan.notes),
        "releases": list(plan.releases),
        "peft": peft_arguments(plan.config),
    }


def check_json(check: Check) -> Json:
    """`check --json`: what is adapted, its cost, the findings."""
    return {
        "schema": SCHEMA,
        "gaps": gaps_json(check.model),
        "model": model_json(check.model),
        "subject": check.subject,
        "trainer": check.trainer or None,
        "peft": check.peft or None,
        "targets": [_target(adapted, adapted.name) for adapted in check.resolution.adapted],
        "saved": list(check.resolution.saved),
        "trainable": check.resolution.trainable,
        "total": check.model.dimensions.parameters,
        "matters": check.matters,
        "findings": [finding_json(finding) for finding in check.findings],
        "serving": serving_json(check.serving) if check.serving else None,
    }


def serving_json(serving: Serving) -> Json:
    """`--serve`: every question with its answer."""
    answers = [_fields(answer) for answer in serving.answers]
    return {**_fields(serving), "answers": answers, "flags": list(serving.flags)}


def notes_json(notes: Iterable[Diagnostic]) -> list[Json]:
    """Notes on a plan, with their codes."""
    return [{"code": note.code, "text": str(note)} for note in notes]


def model_json(model: ModelMap) -> Json:
    """The model and its dimensions, as every command prints them."""
    return {
        "id": model.model,
        "model_type": model.model_type,
        "architecture": model.architecture,
        "head": model.head,
        "source": model.source,
        "dimensions": _fields(model.dimensions),
        "transformers": model.versions.get("transformers"),
        "commit": model.versions.get("commit"),
        "basis": model.basis,
        "unexplained": list(model.unexplained),
        "missing": list(model.missing),
        "notes": list(model.notes),
    }


def _weight(model: ModelMap, weight: Weight, reach: Reach) -> Json:
    out_features, in_features = weight.shape[-2:]
    if weight.kind == "embedding":  # stored (entries, width), and read from the former to the latter
        out_features, in_features = in_features, out_features
    return {
        "name": weight.name,
        "kind": weight.kind,
        **_role(weight.role),
        "guess": weight.guess,
        "layer": weight.layer,
        "in_features": in_features,
        "out_features": out_features,
        "experts": weight.shape[0] if len(weight.shape) == 3 else None,
        "basis": model.basis,
        "quantization": weight.quantization or None,
        "adaptable": bool(reach.through),
        "reach": reach.through or None,
        "reason": reach.reason or None,
    }


def _fields(value: Any) -> Json:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _role(role: Role) -> Json:
    return {fact: value or None for fact, value in _fields(role).items()}


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
        "block": omission.block,
        "roles": list(dict.fromkeys(str(weight.role) for weight in omission.weights)),
        "names": fold(weight.name for weight in omission.weights),
        "count": len(omission.weights),
        "parameters": omission.parameters,
        "share": omission.share,
    }
