"""Checks an adapter, names or a trainer's configuration on a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lorascope.checks.config_findings import (
    adapter_file_findings,
    by_severity,
    configuration_findings,
    map_findings,
    trainer_findings,
)
from lorascope.checks.context import CheckContext, on_replicated_layers
from lorascope.checks.inputs import CheckInput, read_check_input
from lorascope.checks.rules.origins import note_origins
from lorascope.checks.rules.servers import report_unservable
from lorascope.checks.saved_labels import saved_labels, with_labels
from lorascope.checks.setting_syntax import SettingSyntax
from lorascope.checks.types import Check
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.arguments import require_kinds, require_map
from lorascope.plans.verify import adapter_config, resolve_with_gaps
from lorascope.servers.types import Serving
from lorascope.trainers.known_keys import known_keys, unknown_key_findings

if TYPE_CHECKING:
    from lorascope.trainers.protocol import Trainer

# So many unknown keys are compared with those that PEFT has.
_MOST_COMPARED = 20


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
    """Check what a configuration adapts, and what is wrong with it.

    Args:
        model: The map of the model.
        adapter: An adapter's folder, its `adapter_config.json`, its Hub id or the content of the file; a trainer's
            configuration; or names as in `target_modules`, or one regular expression.
        peft: The release of PEFT whose rules to apply, 0.18 to 0.21; by default the newest, and the trainer's for a
            trainer's configuration.
        trainer: The trainer whose configuration or options are given; found out from the file if empty.
        rank: The rank of names.
        alpha: The alpha of names.
        revision: Branch, tag or commit of a Hub id.
        serve: Also check that this server supports the adapter: `vllm`, `sglang`, or a release such as `vllm==0.20.2`.
        progress: Called with the number of parts read of a Hub adapter, and of all.

    Raises:
        LorascopeError: There is nothing of that name, it cannot be read, the server is unknown, or `serve` is asked of a
            trainer that does not use PEFT.
    """
    require_map(model, "check")
    texts = {"peft": peft, "trainer": trainer, "serve": serve, "revision": "" if revision is None else revision}
    require_kinds("check", **{name: (value, (str,), "a text") for name, value in texts.items()})
    if serve:
        from lorascope.servers.facts import server_facts

        server_facts(serve)  # an unknown server is refused before anything is read
    if not adapter:
        raise LorascopeError("nothing is given to check", hint="Try: lorascope check mistral q_proj v_proj")
    if len(adapter) == 1 and not isinstance(adapter[0], str | os.PathLike):
        if not isinstance(adapter[0], Mapping):
            given = CheckInput("adapter configuration", {})
            return _check_peft(model, given, adapter_config(adapter[0]), peft, serve)
        require_kinds("check", **{f"the name {quoted(key)}": (key, (str,), "a text") for key in adapter[0]})
        return _check_peft(model, CheckInput("adapter configuration", adapter[0]), None, peft, serve)
    words = [word for word in adapter if isinstance(word, str | os.PathLike)]
    if len(words) < len(adapter):
        raise LorascopeError("several configurations are given", hint="Check one at a time.")
    given = read_check_input(
        model, words, trainer=trainer, rank=rank, alpha=alpha, revision=revision, progress=progress
    )
    if given.trainer_file is not None:
        return _check_trainer(model, given, peft, serve)
    return _check_peft(model, given, None, peft, serve, loaded=True)


def _unknown_keys(settings: Mapping[str, Any], where: str, *, loaded: bool) -> Iterator[Finding]:
    """Keys that PEFT does not have: an argument raises, a key of a file is dropped (`from_peft_type` of its config.py)."""
    if not loaded:
        yield from unknown_key_findings("peft", settings, where, consequence="PEFT raises", severity="error")
        return
    consequence = "PEFT drops it with a warning when it loads the adapter"
    known = known_keys("peft")
    unknown = [key for key in settings if key not in known]
    misspelt = {key for key in unknown[:_MOST_COMPARED] if settings[key] and did_you_mean(key, known)}
    yield from unknown_key_findings("peft", misspelt, where, consequence=consequence, severity="warning")
    others = [key for key in unknown if key not in misspelt]
    fix = "Nothing to do, unless another program needs it."
    yield from unknown_key_findings("peft", others, where, consequence=consequence, severity="note", fix=fix)


def _check_peft(
    model: ModelMap, given: CheckInput, config: AdapterConfig | None, peft: str, serve: str, *, loaded: bool = False
) -> Check:
    """What PEFT does with its own configuration, given as arguments or `loaded` from a file."""
    release = peft or NEWEST
    settings = given.settings
    findings = list(_unknown_keys(settings, given.where, loaded=loaded))
    if config is None:
        known = known_keys("peft")
        config = adapter_config({key: value for key, value in settings.items() if key in known})
    resolution = resolve_with_gaps(model, config, release)
    labels = saved_labels(model, resolution, given.tensors)
    if labels is not None:
        model = with_labels(model, labels)
        resolution = resolve_with_gaps(model, config, release)
    context = CheckContext(
        model, config, resolution, given.where, release, settings, given.tensors, resolved=True, labels=labels
    )
    context = on_replicated_layers(context)
    findings += [*configuration_findings(context), *adapter_file_findings(context)]
    serving = _serving(context, serve, settings)
    return _result(context, findings, given.notes, config=config, peft=release, serving=serving)


def _check_trainer(model: ModelMap, given: CheckInput, peft: str, serve: str) -> Check:
    """What a trainer does with its configuration."""
    assert given.trainer_file is not None
    trainer, settings = given.trainer_file.trainer, given.trainer_file.config
    title = f"{trainer.title} {trainer.release}"
    if peft:
        raise LorascopeError(
            f"{title} runs with PEFT {trainer.peft}" if trainer.peft else "it uses no PEFT",
            where=f"--peft {peft}",
            hint="Leave out --peft for a trainer's configuration.",
        )
    outcome = trainer.resolve(model, settings)
    if serve and outcome.config is None:
        raise LorascopeError(
            f"{title} writes no adapter of PEFT, and nothing is known of what servers do with it",
            where=f"--serve {serve}",
            hint="Leave out --serve, or check the adapter_config.json that it is converted to.",
        )
    config = outcome.config or AdapterConfig()
    context = CheckContext(
        model,
        config,
        outcome.resolution,
        given.where,
        trainer.peft or NEWEST,
        syntax=_syntax(trainer),
        expanded=outcome.expanded,
    )
    context = on_replicated_layers(context)
    findings = [*settings.findings, *outcome.findings]
    findings += configuration_findings(context) if outcome.config is not None else trainer_findings(context)
    # What else a trainer writes into its adapter_config.json is not among what its room reads.
    serving = _serving(context, serve, None)
    return _result(
        context, findings, given.notes, config=outcome.config, peft=trainer.peft, trainer=title, serving=serving
    )


def _syntax(trainer: Trainer) -> SettingSyntax:
    """How a trainer writes PEFT's settings."""
    return SettingSyntax(trainer.title, "python" if trainer.form == "json" else trainer.form, trainer.keys or None)


def _serving(context: CheckContext, server: str, extras: Mapping[str, Any] | None) -> Serving | None:
    """What a server does with the adapter, if one is given."""
    if not server:
        return None
    from lorascope.servers.check import serve as serve_adapter  # with the rules of every server

    return serve_adapter(
        context.model,
        context.config,
        context.resolution,
        server,
        extras=extras,
        tensors=context.tensors,
        peft=context.release_name,
    )


def _result(
    context: CheckContext,
    findings: list[Finding],
    notes: Iterable[str],
    *,
    config: AdapterConfig | None,
    peft: str,
    trainer: str = "",
    serving: Serving | None = None,
) -> Check:
    if serving is not None:
        findings = [*findings, *report_unservable(serving, context.where)]
    ordered = [*map_findings(context), *by_severity([*findings, *note_origins(context.where, notes)])]
    return Check(context.model, context.where, config, context.resolution, tuple(ordered), trainer, peft, serving)
