"""What an adapter, a list of names or a trainer's configuration really does on a model, and what its owner should know."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lorascope.checks.config_findings import configuration_findings, trainer_findings
from lorascope.checks.context import Case
from lorascope.checks.inputs import Subject, subject_of
from lorascope.checks.rules.base_model import base_findings
from lorascope.checks.types import Check
from lorascope.errors import LorascopeError
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.arguments import require_kinds, require_map
from lorascope.plans.verify import adapter_config, verify
from lorascope.servers.check import serve as serve_adapter
from lorascope.servers.facts import server_facts
from lorascope.servers.types import Serving
from lorascope.trainers.known_keys import known_keys, unknown_key_findings

_SEVERITIES = ("error", "warning", "note")
# The most findings of one code and severity that are listed: a file may have one for every line.
_MOST_OF_A_CODE = 20


@in_matching_time
def check(
    model: ModelMap,
    *adapter: str | os.PathLike[str] | Mapping[str, Any] | AdapterConfig,
    peft: str = "",
    trainer: str = "",
    rank: int = 8,
    alpha: float = 16,
    revision: str | None = None,
    serve: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Which weights are adapted, at which rank and scale, and findings, each with its reason and what to do.

    Args:
        model: The map of the model.
        adapter: An adapter's folder, its `adapter_config.json`, its Hub id or the content of the file; a trainer's
            configuration; or names as in `target_modules`, or one regular expression.
        peft: The release of PEFT whose rules to apply, 0.18 to 0.21; the newest if not given, and that of the trainer
            for a trainer's configuration.
        trainer: The trainer whose configuration or options are given; found out from the file if empty.
        rank: The rank of names.
        alpha: The alpha of names.
        revision: Branch, tag or commit of a Hub id.
        serve: Also tell whether this server takes the adapter: `vllm`, `sglang`, or a release such as `vllm==0.20.2`.
        progress: Called with the number of parts read of a Hub adapter, and of all.

    Raises:
        LorascopeError: There is nothing of that name, it cannot be read, it uses something that the rules do not
            cover, or the server is unknown or asked for what is no adapter of PEFT.
    """
    require_map(model, "check")
    texts = {"peft": peft, "trainer": trainer, "serve": serve, "revision": "" if revision is None else revision}
    require_kinds("check", **{name: (value, (str,), "a text") for name, value in texts.items()})
    if serve:
        server_facts(serve)  # an unknown server is told before anything is read
    if not adapter:
        raise LorascopeError("nothing is given to check", hint="Try: lorascope check mistral q_proj v_proj")
    if len(adapter) == 1 and not isinstance(adapter[0], str | os.PathLike):
        given = adapter[0]
        if isinstance(given, Mapping):
            require_kinds("check", **{f"the name {quoted(key)}": (key, (str,), "a text") for key in given})
        subject = Subject("adapter configuration", given if isinstance(given, Mapping) else {"": given})
        if not isinstance(given, Mapping):
            return _of_peft(model, subject, adapter_config(given), peft, serve)
    else:
        words = [word for word in adapter if isinstance(word, str | os.PathLike)]
        if len(words) < len(adapter):
            raise LorascopeError("several configurations are given", hint="Check one at a time.")
        subject = subject_of(
            model, words, trainer=trainer, rank=rank, alpha=alpha, revision=revision, progress=progress
        )
    if subject.trainer is not None:
        return _of_trainer(model, subject, peft, serve)
    return _of_peft(model, subject, None, peft, serve)


def _of_peft(model: ModelMap, subject: Subject, config: AdapterConfig | None, peft: str, serve: str) -> Check:
    """What PEFT does with its own configuration."""
    release = peft or NEWEST
    settings: Mapping[str, Any] = subject.settings if config is None else {}
    unknown = list(
        unknown_key_findings(
            "peft", settings, subject.where, consequence="PEFT raises, or drops it when it loads an adapter"
        )
    )
    if config is None:
        known = known_keys("peft")
        config = adapter_config({key: value for key, value in settings.items() if key in known})
    case = Case(model, config, verify(model, config, peft=release), subject.where, release, settings)
    findings = [*unknown, *configuration_findings(case), *base_findings(case, subject.tensors)]
    if subject.tensors is not None:
        from lorascope.checks.rules.tensors import tensor_findings  # with what reads tables of names

        findings += tensor_findings(case, subject.tensors)
    return _check(case, subject, findings, config=config, peft=release, serve=serve)


def _of_trainer(model: ModelMap, subject: Subject, peft: str, serve: str) -> Check:
    """What a trainer does with its configuration."""
    trainer, asked = subject.trainer, subject.asked
    assert trainer is not None
    assert asked is not None
    if peft:
        raise LorascopeError(
            f"{trainer.title} {trainer.release} runs with PEFT {trainer.peft}" if trainer.peft else "it uses no PEFT",
            where=f"--peft {peft}",
            hint="Leave out --peft for a trainer's configuration.",
        )
    outcome = trainer.resolve(model, asked)
    if serve and outcome.config is None:
        raise LorascopeError(
            f"{trainer.title} {trainer.release} writes no adapter of PEFT, and nothing is known of what servers do with it",
            where=f"--serve {serve}",
            hint="Leave out --serve, or check the adapter_config.json that it is converted to.",
        )
    config = outcome.config or AdapterConfig()
    case = Case(model, config, outcome.resolution, subject.where, trainer.peft or NEWEST)
    findings = [*asked.findings, *outcome.findings]
    findings += configuration_findings(case) if outcome.config is not None else trainer_findings(case)
    said = f"{trainer.title} {trainer.release}"
    return _check(case, subject, findings, config=outcome.config, peft=trainer.peft, trainer=said, serve=serve)


def _check(
    case: Case,
    subject: Subject,
    findings: list[Finding],
    *,
    config: AdapterConfig | None,
    peft: str,
    trainer: str = "",
    serve: str = "",
) -> Check:
    serving: Serving | None = None
    if serve and config is not None:
        # What else a trainer writes into its adapter_config.json is not among what its room reads.
        extras = None if trainer else case.given
        serving = serve_adapter(case.model, config, case.resolution, serve, extras=extras)
        findings = [*findings, *_not_servable(serving, subject.where)]
    found = [*findings, *(Finding("origin", "note", subject.where, note, "") for note in subject.notes)]
    ordered = sorted(dict.fromkeys(found), key=lambda finding: _SEVERITIES.index(finding.severity))
    told = tuple(_first_of_each(ordered, subject.where))
    return Check(case.model, subject.where, config, case.resolution, told, trainer, peft, serving)


def _first_of_each(findings: list[Finding], where: str) -> Iterator[Finding]:
    """The first findings of each code and severity, and after them how many more there are."""
    counts = Counter((finding.code, finding.severity) for finding in findings)
    seen: Counter[tuple[str, Severity]] = Counter()
    for finding in findings:
        kind = (finding.code, finding.severity)
        seen[kind] += 1
        if seen[kind] <= _MOST_OF_A_CODE:
            yield finding
        elif seen[kind] == _MOST_OF_A_CODE + 1:
            message = f"There are {counts[kind] - _MOST_OF_A_CODE:,} more of this kind."
            yield Finding(finding.code, finding.severity, where, message, "Mend these first, and check again.")


def _not_servable(serving: Serving, where: str) -> Iterator[Finding]:
    """An error for everything that a server does not take."""
    for one in serving.answers:
        if one.answer == "no":
            message = f"{serving.server} {serving.release}, {one.question}: {one.reason}"
            fix = "Change that, or merge the adapter into the model and serve the merged one."
            yield Finding("not-servable", "error", where, message, fix)
