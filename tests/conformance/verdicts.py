"""One architecture against real PEFT: every recipe, two odd rules, and the four target lists that people paste.

Used by the conformance tests and by the tool that writes `docs/conformance.md`, so that both say the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from architectures import Entry

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.releases import NEWEST, SUPPORTED_PEFT
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plan_api import plan
from lorascope.plans.rules import holds, own_components, parse_rule
from lorascope.plans.task_types import task_type
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers.oracle import Truth, peft_kwargs, peft_truth, restored

if TYPE_CHECKING:
    from torch import nn

RULES: dict[str, tuple[str, ...]] = {
    "qv": ("qv",),
    "attention": ("attention",),
    "ffn": ("ffn",),
    "qv+ffn": ("qv+ffn",),
    "all": ("all",),
    "layer slice": ("attention.q,v[::2]=8", "ffn[-1]=2/7"),
    "per-layer ranks": ("attention.o=3", "attention.k,v[1:]=6", "attention,ffn,mixer[0]=5/9"),
}
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# What the adapters' numbers are does not matter on the meta device, and drawing them takes a fifth of the time.
_QUICK = {"init_lora_weights": False}
PASTED: dict[str, str | tuple[str, ...] | None] = {
    "seven names": SEVEN,
    "q_proj,v_proj": ("q_proj", "v_proj"),
    "PEFT's default": None,
    "all-linear": "all-linear",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one plan or list: `exact`, `refused` or `different`, and why."""

    what: str
    verdict: str
    reason: str = ""
    weights: int = 0
    trainable: int = 0


def measure_plans(
    module: nn.Module | None, model: ModelMap, peft: str = NEWEST, rules: Mapping[str, tuple[str, ...]] = RULES
) -> Iterator[Outcome]:
    """Each of the rules: planned, compiled, and given to the installed PEFT; without a module, to our rules of it."""
    for name, texts in rules.items():
        try:
            made = plan(model, *texts)
        except LorascopeError as error:
            yield Outcome(name, "refused", str(error))
            continue
        asked = {peft_name(model, target.weight): (target.rank, float(target.alpha)) for target in made.targets}
        config = made.config
        if peft in SUPPORTED_PEFT and peft not in made.releases:  # which the plan says
            config = dataclasses.replace(config, task_type=None)
        try:
            truth, trainable = _adapted(module, model, config, peft)
        except Exception as error:
            yield Outcome(name, "different", f"PEFT raises {type(error).__name__}: {error}")
            continue
        found = {weight: (rank, float(alpha)) for weight, (rank, alpha, _) in truth.items()}
        counted = resolve(model, config, peft).trainable
        if found != asked:
            odd = sorted(key for key in found.keys() | asked.keys() if found.get(key) != asked.get(key))
            yield Outcome(
                name, "different", f"{len(odd)} weights, such as {odd[0]}: {found.get(odd[0])}, not {asked.get(odd[0])}"
            )
        elif counted != trainable:
            yield Outcome(name, "different", f"{trainable} trainable parameters, counted {counted}")
        else:
            yield Outcome(name, "exact", "", len(found), trainable)


@dataclasses.dataclass(frozen=True, slots=True)
class Pasted:
    """What a pasted list really does, by PEFT itself: `error`, `misses`, `extra` or `exact`.

    Attributes:
        missed: Share of the claimed parameters that PEFT leaves out.
        extra: Adapted weights outside of the language model's attention, FFN and mixers.
        agrees: Our rules say the same as PEFT: targets, ranks and trainable parameters, or that it raises.
    """

    what: str
    verdict: str
    missed: float = 0.0
    extra: int = 0
    agrees: bool = True


def measure_pasted(
    module: nn.Module | None,
    model: ModelMap,
    peft: str = NEWEST,
    lists: Mapping[str, str | tuple[str, ...] | None] = PASTED,
) -> Iterator[Pasted]:
    """Each list of `PASTED` through PEFT and through our rules; without a module, through our rules alone.

    The seven names and `all-linear` claim the attention and FFN of the language model, `q_proj,v_proj` and PEFT's
    default what makes its queries and values.
    """
    for name, targets in lists.items():
        config = AdapterConfig(target_modules=targets, task_type=task_type(model))
        ours = resolve(model, config, peft)
        try:
            truth, trainable = _adapted(module, model, config, peft)
        except Exception:
            yield Pasted(name, "error", agrees=ours.refusal is not None)
            continue
        same = {one.name: one.rank for one in ours.adapted} == {key: rank for key, (rank, _, _) in truth.items()}
        yield _judged(model, name, set(truth), agrees=same and ours.trainable == trainable)


def _adapted(module: nn.Module | None, model: ModelMap, config: AdapterConfig, peft: str) -> tuple[Truth, int]:
    """Every adapted weight and the number of trainable parameters, by PEFT itself or by our rules."""
    if module is not None:
        with restored(module):
            return peft_truth(module, {**peft_kwargs(config), **_QUICK})
    ours = resolve(model, config, peft)
    if ours.refusal is not None:
        raise LorascopeError(str(ours.refusal))
    return {one.name: (one.rank, one.alpha, one.scale) for one in ours.adapted}, ours.trainable


def _judged(model: ModelMap, name: str, adapted: set[str], *, agrees: bool) -> Pasted:
    names = {key if key in model.weight_by_name else key.removesuffix(".weight") for key in adapted}
    own = [weight for weight in model.weights if weight.role.component in own_components(model)]
    blocks = [weight for weight in own if weight.role.block in ("attention", "ffn", "mixer")]
    rule = parse_rule("attention.q,v" if name in ("q_proj,v_proj", "PEFT's default") else "attention,ffn")
    claimed = [weight for weight in own if holds(weight, rule.facts)]
    size = sum(weight.size for weight in claimed)
    missed = sum(weight.size for weight in claimed if weight.name not in names) / size if size else 0.0
    extra = len(names - {weight.name for weight in blocks})
    return Pasted(name, "misses" if missed else "extra" if extra else "exact", missed, extra, agrees)


def built(entry: Entry) -> tuple[nn.Module, ModelMap]:
    """The entry's model on the meta device, and its map."""
    module = entry.build()
    return module, map_module(module, model=entry.label, head=entry.head)


def recorded(plans: Iterable[Outcome], pasted: Iterable[Pasted]) -> dict[str, Any]:
    """What was measured of an entry, as it stands in `results.json`."""
    return {
        "plans": {o.what: [o.verdict, _plain(o.reason) if o.reason else o.weights] for o in plans},
        "pasted": {o.what: [o.verdict, round(o.missed, 4), o.extra] for o in pasted},
    }


def _plain(reason: str) -> str:
    return "the model has no such weights" if "selects nothing in" in reason else reason.splitlines()[0]
