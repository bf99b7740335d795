"""Notes on a plan: each a code and values, from which its text is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Role, Trace, Weight
from lorascope.number_text import share_text

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


def counted(count: int, parameters: int) -> str:
    """A number of weights by how PEFT adapts them: `64 modules`, `2 parameters`, `60 modules and 4 parameters`."""
    modules = count - parameters
    parts = [
        f"{number:,} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((modules, "module"), (parameters, "parameter"))
        if number or not count
    ]
    return " and ".join(parts[:2] if count else parts[:1])


def in_words(words: Sequence[str]) -> str:
    """Words as a list: `a`, `a and b`, `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _verdicts(named: str, guess: bool, flow: str) -> str:
    by_name = f"the name says {named}{' (a guess)' if guess else ''}" if named else "the name says nothing"
    return f"{by_name}, dataflow says {flow}" if flow else by_name


def _title(block: str) -> str:
    """A block in words: `attention`, `FFN`, `vision FFN`."""
    return " ".join("FFN" if word == "ffn" else word for word in block.split("."))


def _no_dropout(count: int, example: str, experts: bool) -> str:
    if experts:
        return "Dropout is 0: PEFT cannot apply dropout to fused expert weights (target_parameters)."
    return f"Dropout is 0: PEFT cannot apply dropout to target_parameters ({count} here, such as {example})."


def _expert_rank(rank: int, each: int, active: int, selector: str) -> str:
    return (
        f"Each expert gets rank {each}: rank {rank} split over the {active} experts active per token. "
        f"For full rank add {selector}={rank}."
    )


def _unexplained(count: int, names: tuple[str, ...], more: int) -> str:
    rest = f" and {more} more" if more else ""
    tensors = "tensor that the map does not explain" if count == 1 else "tensors that the map does not explain"
    return f"No rule selects {count} {tensors}: {', '.join(names)}{rest}."


def _unreachable(roles: tuple[str, ...], count: int, example: str, reason: str) -> str:
    weights = f"{count} of them, such as {example}" if count > 1 else example
    return f"Not adaptable: {in_words(roles)} ({weights}). {reason}"


def _fused_part(role: str, pieces: tuple[str, ...], count: int, parameters: int) -> str:
    return f"Also adapts {in_words(pieces)}: {role} is one fused matrix ({counted(count, parameters)})."


def _left_out(
    block: str, roles: tuple[str, ...], parts: tuple[str, ...], count: int, parameters: int, share: float
) -> str:
    names = f"{_title(block)} {in_words(parts)}" if parts else in_words(roles)
    size = "half" if round(share, 3) == 0.5 else share_text(share)
    return f"Not adapted: {names} ({counted(count, parameters)}, {size} of the {_title(block)} parameters)."


def _experts_dominate(share: float, ranks: tuple[int, ...], experts: int) -> str:
    return (
        f"Experts take {share_text(share)} of the trainable parameters: "
        f"each of the {experts} per layer gets rank {in_words(list(map(str, ranks)))}. "
        "To leave them out: --exclude ffn.expert"
    )


def _as_parameters(roles: tuple[str, ...], count: int, example: str, model_type: str) -> str:
    return (
        f"{in_words(roles)} ({count}, such as {example}) are adapted through target_parameters: in target_modules PEFT "
        f"would rewrite their names into those of the routed experts ({model_type})."
    )


def _shared_adapter(roles: tuple[str, ...]) -> str:
    return f"All experts of a layer share one adapter: {in_words(roles)} stacks them into one 2-D matrix."


def _tied(name: str, others: tuple[str, ...]) -> str:
    return f"{name} shares its weight with {in_words(others)}: merging the adapter changes both."


def _tied_targets(name: str, more: int) -> str:
    return (
        f"{name} and {more} more share one weight and get an adapter each: merging would add all of them to it. "
        "Keep the adapter unmerged."
    )


def _saved(modules: tuple[str, ...]) -> str:
    return f"Trained in full, without LoRA: {in_words(modules)}."


def _no_task_type(architecture: str) -> str:
    return f"No task_type is set: {architecture} lacks the method for generation that PEFT's wrappers need."


def _quantized(roles: tuple[str, ...], count: int, parameters: int, quantization: str, need: str) -> str:
    return f"{in_words(roles)} ({counted(count, parameters)}) are stored as {quantization}. {need}"


def _names_only(model_type: str) -> str:
    return (
        f'This plan rests on tensor names alone: model type "{model_type}" is unknown, so nobody has checked that its '
        "code uses these module names, or that PEFT adapts them. Try it on the loaded model first: get_peft_model "
        "raises where a name is wrong."
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
    doubt = "Names and dataflow disagree" if disagrees else "No forward pass confirms the role"
    weights = f"{in_words(roles)} ({counted(count, parameters)}, such as {example})"
    return f"{doubt}: {weights}: {_verdicts(named, guess, flow)}: {evidence}"


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
