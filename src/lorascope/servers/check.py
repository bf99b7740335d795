"""Will a server take this adapter: yes, no, or depends, with the reason and the source of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.servers.facts import Facts, server_facts
from lorascope.servers.sglang import sglang_answers
from lorascope.servers.types import Answer, Serving
from lorascope.servers.vllm import vllm_answers

_WORST = ("no", "depends", "yes")


@in_matching_time
def serve(
    model: ModelMap,
    config: AdapterConfig,
    resolution: Resolution,
    server: str,
    *,
    extras: Mapping[str, Any] | None = MappingProxyType({}),
) -> Serving:
    """What a server does with an adapter as PEFT saves it, on the model that it was trained on.

    Args:
        model: The map of the model.
        config: The adapter's configuration.
        resolution: What PEFT adapts with it.
        server: `vllm` or `sglang`, or a release of them: `vllm==0.11.2`.
        extras: The keys of `adapter_config.json` that an `AdapterConfig` does not hold, such as `init_lora_weights`; None
            if nobody knows them, which no server's answer about options can then be sure of.

    Raises:
        LorascopeError: There is no such server, or no release that old is recorded.
    """
    facts = server_facts(server)
    if resolution.error:
        return _finished(facts, (Answer("adapter", "no", f"there is none: {resolution.error}", "PEFT"),), ())
    if not resolution.adapted:
        return _finished(facts, (Answer("adapter", "no", "there is none: nothing is adapted", "PEFT"),), ())
    ask = vllm_answers if facts.server == "vllm" else sglang_answers
    return _finished(facts, *ask(facts, model, config, resolution, extras))


def _finished(facts: Facts, answers: tuple[Answer, ...], flags: tuple[str, ...]) -> Serving:
    """Worst answers first; what is refused whatever the flags gets none."""
    if facts.asked != facts.release:
        reason = f"{facts.asked} is not recorded: the rules are those of {facts.release}, the nearest older release"
        answers = (*answers, Answer("release", "depends", reason, "lorascope"))
    ordered = tuple(sorted(answers, key=lambda one: _WORST.index(one.answer)))
    worst = ordered[0].answer
    return Serving(facts.server, facts.release, worst, ordered, () if worst == "no" else flags)
