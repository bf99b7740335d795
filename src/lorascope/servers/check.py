"""Checks that a server supports an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.servers.factors import file_factors
from lorascope.servers.facts import Facts, server_facts
from lorascope.servers.sglang import sglang_answers
from lorascope.servers.types import Answer, Serving
from lorascope.servers.vllm import vllm_answers
from lorascope.sources.checkpoint.types import Tensor

_WORST = ("no", "depends", "yes")


@in_matching_time
def serve(
    model: ModelMap,
    config: AdapterConfig,
    resolution: Resolution,
    server: str,
    *,
    extras: Mapping[str, Any] | None = MappingProxyType({}),
    tensors: Mapping[str, Tensor] | None = None,
    peft: str = NEWEST,
) -> Serving:
    """Check that a server supports an adapter on its base model.

    Args:
        model: The map of the model.
        config: The adapter's configuration.
        resolution: What PEFT adapts with it.
        server: `vllm` or `sglang`, or a release of them: `vllm==0.11.2`.
        extras: The keys of `adapter_config.json` that an `AdapterConfig` does not hold, such as `init_lora_weights`; None
            if they are unknown, so that no answer about options is sure.
        tensors: Those of the adapter's file by name; None if there is no file, so that the answer is about one that PEFT
            saves with this configuration.
        peft: The release of PEFT that the file was or will be saved with.

    Raises:
        LorascopeError: There is no such server, or no release that old is recorded.
    """
    facts = server_facts(server)
    if resolution.refusal or not resolution.adapted:
        why = resolution.refusal or "nothing is adapted"
        return _sorted_answers(facts, (Answer("adapter", "no", f"there is no adapter: {why}", "PEFT"),), ())
    answer = vllm_answers if facts.server == "vllm" else sglang_answers
    saved = saved_tensors(model, config, resolution, peft).tensors
    file = file_factors(saved if tensors is None else tensors, saved, at_hand=tensors is not None)
    return _sorted_answers(facts, *answer(facts, model, config, resolution, extras, file))


def _sorted_answers(facts: Facts, answers: tuple[Answer, ...], flags: tuple[str, ...]) -> Serving:
    """Worst answers first, and flags unless the answer is no."""
    if facts.wanted != facts.release:
        reason = f"{facts.wanted} is not recorded; these are the rules of {facts.release}, the nearest older release"
        answers = (*answers, Answer("release", "depends", reason, "lorascope"))
    ordered = tuple(sorted(answers, key=lambda answer: _WORST.index(answer.answer)))
    worst = ordered[0].answer
    return Serving(facts.server, facts.release, worst, ordered, () if worst == "no" else flags)
