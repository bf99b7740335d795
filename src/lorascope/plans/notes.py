"""Notes on a plan: each a code and values, from which its text is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Role, Trace, Weight

Value = str | int | float | tuple[str, ...] | tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """One note on a plan.

    Attributes:
        code: Its kind, one of `CODES`; stable.
        values: What its text is made of.
    """

    code: str
    values: Mapping[str, Value]

    def __str__(self) -> str:
        return _TEXTS[self.code](**self.values)


def label(weight: Weight) -> str:
    """The weight's role; the component `text` goes without saying."""
    return role_label(weight.role)


def role_label(role: Role | None) -> str:
    """A role without the component `text`; empty for None."""
    return "" if role is None else str(role).removeprefix("text.")


def trace_values(trace: Trace) -> dict[str, Value]:
    """The values of a note on a trace."""
    unknown = trace.guess and trace.named.block == "other"
    return {
        "named": "" if unknown else role_label(trace.named),
        "guess": trace.guess,
        "flow": role_label(trace.flow),
        "evidence": trace.evidence,
    }


def describe_trace(trace: Trace) -> str:
    """What name and dataflow say of a weight."""
    named = "" if trace.guess and trace.named.block == "other" else role_label(trace.named)
    return _verdicts(named, trace.guess, role_label(trace.flow))


def _verdicts(named: str, guess: bool, flow: str) -> str:
    by_name = f"the name says {named}{' (a guess)' if guess else ''}" if named else "the name says nothing"
    return f"{by_name}, dataflow says {flow}" if flow else by_name


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _no_dropout(count: int, example: str, dropout: float) -> str:
    return (
        f"dropout is 0, not {dropout:g}: {count} of them, such as {example}, are reached as parameters, where PEFT has "
        "no dropout"
    )


def _expert_rank(rank: int, each: int, active: int, selector: str) -> str:
    return (
        f"routed experts get rank {each} each, {rank} // {active} active experts; "
        f"write {selector}={rank} after the recipe for rank {rank} per expert"
    )


def _unexplained(count: int, names: tuple[str, ...], more: int) -> str:
    rest = f" and {more} more" if more else ""
    return f"no rule selects tensors that the map does not explain: {count} of them: {_list(names)}{rest}"


def _unreachable(roles: tuple[str, ...], count: int, parameters: int, example: str, reason: str) -> str:
    return f"cannot be adapted: {_list(roles)} ({count} weights, such as {example}): {reason}"


def _fused_part(role: str, pieces: tuple[str, ...], count: int) -> str:
    verb = "come" if len(pieces) > 1 else "comes"
    return f"{' and '.join(pieces)} {verb} along: {role} is one matrix for several parts ({count} weights)"


def _left_out(block: str, roles: tuple[str, ...], count: int, share: float) -> str:
    return f"left out: {share:.1%} of the parameters of {block}: {_list(roles)} ({count} weights)"


def _experts_dominate(share: float, ranks: tuple[int, ...], experts: int) -> str:
    return (
        f"experts are {share:.1%} of the trainable parameters: rank "
        f"{' and '.join(map(str, ranks))} is per expert, and there are {experts} in a layer; leave them out with "
        "--exclude ffn.expert"
    )


def _as_parameters(roles: tuple[str, ...], count: int, parameters: int, example: str, model_type: str) -> str:
    return (
        f"{_list(roles)} ({count} weights, such as {example}) are adapted through target_parameters, "
        f"because PEFT would rewrite their module names into those of the routed experts ({model_type})"
    )


def _shared_adapter(roles: tuple[str, ...]) -> str:
    return f"{_list(roles)}: all experts are stacked into one 2-D matrix here, so they share one adapter per layer"


def _tied(name: str, others: tuple[str, ...]) -> str:
    return f"{name} shares its tensor with {_list(others)}; merging the adapter would change both"


def _tied_targets(name: str, more: int) -> str:
    return (
        f"{name} and {more} more share one tensor and get an adapter each; merging would add all of "
        "them to that tensor, so keep the adapter unmerged"
    )


def _saved(modules: tuple[str, ...]) -> str:
    return f"trained in full beside the adapters: {_list(modules)}"


def _no_task_type(architecture: str) -> str:
    return f"no task_type: {architecture} cannot generate in the way that PEFT's task wrappers need"


def _quantized(roles: tuple[str, ...], count: int, parameters: int, quantization: str, need: str) -> str:
    return f"{_list(roles)} ({count} weights) stored as {quantization}: {need}"


def _names_only(model_type: str) -> str:
    return (
        f'the plan rests on names alone: model type "{model_type}" is not known, so that nobody has checked that '
        "its code calls these modules so, or that they are what PEFT adapts. Try it on the loaded model first: "
        "get_peft_model raises where a name is wrong"
    )


def _traced_doubt(
    roles: tuple[str, ...],
    count: int,
    parameters: int,
    example: str,
    disagrees: bool,
    named: str,
    guess: bool,
    flow: str,
    evidence: str,
) -> str:
    doubt = "names and dataflow disagree" if disagrees else "no forward pass confirms it"
    verdicts = _verdicts(named, guess, flow)
    return f"{_list(roles)} ({count} weights, such as {example}): {doubt}: {verdicts}: {evidence}"


def _release(releases: tuple[str, ...], reason: str) -> str:
    return reason


_TEXTS: dict[str, Callable[..., str]] = {
    "expert-rank": _expert_rank,
    "no-dropout": _no_dropout,
    "unexplained": _unexplained,
    "unreachable": _unreachable,
    "fused-part": _fused_part,
    "left-out": _left_out,
    "experts-dominate": _experts_dominate,
    "as-parameters": _as_parameters,
    "shared-adapter": _shared_adapter,
    "tied": _tied,
    "tied-targets": _tied_targets,
    "saved": _saved,
    "no-task-type": _no_task_type,
    "quantized": _quantized,
    "names-only": _names_only,
    "traced-doubt": _traced_doubt,
    "release": _release,
}
CODES = tuple(_TEXTS)
