"""Notes on a plan: their reasons, from which their texts are made."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.model.types import Role, Trace, Weight
from lorascope.number_text import share_text
from lorascope.peft_rules.diagnostics import Diagnostic, Reason, listed_names


def label(weight: Weight) -> str:
    """The weight's role, with `?` for a guess; the component `text` goes without saying."""
    return f"{role_label(weight.role)}{'?' if weight.guess else ''}"


def role_label(role: Role | None) -> str:
    """A role without the component `text`; empty for None."""
    return "" if role is None else str(role).removeprefix("text.")


def describe_trace(trace: Trace) -> str:
    """What name and dataflow say of a weight."""
    if trace.guess and trace.named.block == "other":
        by_name = "the name says nothing"
    else:
        by_name = f"the name says {role_label(trace.named)}{' (a guess)' if trace.guess else ''}"
    return by_name if trace.flow is None else f"{by_name}, dataflow says {role_label(trace.flow)}"


def counted(count: int, parameters: int) -> str:
    """Weights by how PEFT adapts them: `60 modules and 4 parameters`."""
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


def _title(block: str) -> str:
    """A block in words: `attention`, `FFN`, `vision FFN`."""
    return " ".join("FFN" if word == "ffn" else word for word in block.split("."))


def _no_dropout(note: Diagnostic) -> str:
    if note.values["experts"]:
        return "Dropout is 0: PEFT cannot apply dropout to fused expert weights (target_parameters)."
    example, count = note.names[0], note.values["count"]
    return f"Dropout is 0: PEFT cannot apply dropout to target_parameters ({count} here, such as {example})."


def _unexplained(note: Diagnostic) -> str:
    count = note.values["count"]
    nouns = "tensor of the checkpoint is" if count == 1 else "tensors of the checkpoint are"
    return (
        f"{count:,} {nouns} unexplained: {listed_names(note.names)}. The model has weights that this map does not show: PEFT may adapt "
        "more or fewer modules than stated here, and all sizes leave them out."
    )


def _missing_modules(note: Diagnostic) -> str:
    count = note.values["count"]
    nouns = f"part of {note.values['owner']} is" if count == 1 else f"parts of {note.values['owner']} are"
    return (
        f"{count:,} {nouns} not in the checkpoint: {listed_names(note.names)}. transformers adds them with random values: PEFT may adapt "
        "more modules than stated here."
    )


def _not_adaptable(note: Diagnostic) -> str:
    count, example = note.values["count"], note.values["example"]
    weights = f"{count} of them, such as {example}" if count > 1 else example
    return f"Not adaptable: {in_words(note.names)} ({weights}). {note.values['why']}"


def _dead_with_kernels(note: Diagnostic) -> str:
    number = counted(note.values["count"], note.values["parameters"])
    return f"{number} may stay untrained ({in_words(note.names)}). {note.values['why']}"


def _ignored_in_eval(note: Diagnostic) -> str:
    number = counted(note.values["count"], note.values["parameters"])
    return f"{number} may have no effect ({in_words(note.names)}). {note.values['why']}"


def _fused_part(note: Diagnostic) -> str:
    role, number = note.values["role"], counted(note.values["count"], note.values["parameters"])
    return f"Also adapts {in_words(note.names)}: {role} is one fused matrix ({number})."


def _left_out(note: Diagnostic) -> str:
    block, share, parts = _title(note.values["block"]), note.values["share"], note.values["parts"]
    weights = f"{block} {in_words(parts)}" if parts else in_words(note.names)
    size = "half" if round(share, 3) == 0.5 else share_text(share)
    number = counted(note.values["count"], note.values["parameters"])
    return f"Not adapted: {weights} ({number}, {size} of the {block} parameters)."


def _experts_dominate(note: Diagnostic) -> str:
    share, experts = share_text(note.values["share"]), note.values["experts"]
    ranks = in_words(list(map(str, note.values["ranks"])))
    return (
        f"Experts take {share} of the trainable parameters: each of the {experts} per layer gets rank {ranks}. "
        "To leave them out: --exclude ffn.expert"
    )


def _as_parameters(note: Diagnostic) -> str:
    values = note.values
    return (
        f"{in_words(note.names)} ({values['count']}, such as {values['example']}) are adapted through target_parameters: "
        f"in target_modules PEFT would rewrite their names into those of the routed experts ({values['model_type']})."
    )


def _shared_adapter(note: Diagnostic) -> str:
    return f"All experts of a layer share one adapter: {in_words(note.names)} stacks them into one 2-D matrix."


def _tied(note: Diagnostic) -> str:
    return f"{note.names[0]} shares its weight with {in_words(note.names[1:])}: merging the adapter changes both."


def _saved(note: Diagnostic) -> str:
    return f"Trained in full, without LoRA: {in_words(note.names)}."


def _quantized(note: Diagnostic) -> str:
    number = counted(note.values["count"], note.values["parameters"])
    return f"{in_words(note.names)} ({number}) are stored as {note.values['quantization']}. {note.values['need']}"


def _guessed_role(note: Diagnostic) -> str:
    values, number = note.values, counted(note.values["count"], note.values["parameters"])
    return (
        f"{number} here {'has' if values['count'] == 1 else 'have'} a guessed role ({in_words(values['roles'])}), which no "
        f"known name confirms: {listed_names(note.names)}. lorascope inspect … --trace may tell."
    )


def _traced_doubt(note: Diagnostic) -> str:
    values, trace = note.values, note.values["trace"]
    doubt = "Names and dataflow disagree" if trace.disagrees else "No forward pass confirms the role"
    number = counted(values["count"], values["parameters"])
    weights = f"{in_words(note.names)} ({number}, such as {values['example']})"
    return f"{doubt}: {weights}: {describe_trace(trace)}: {trace.evidence}"


# On the rules and settings.

EXPERT_RANK = Reason(
    "expert-rank",
    "Each expert gets rank {each}: rank {rank} split over the {active} experts active per token. "
    "For full rank add {selector}={rank}.",
)
NO_DROPOUT = Reason("no-dropout", _no_dropout)

# On what is adapted, the most consequential first.

UNEXPLAINED = Reason("unexplained", _unexplained)
MISSING_MODULES = Reason("missing-modules", _missing_modules)
NOT_ADAPTABLE = Reason("not-adaptable", _not_adaptable)
DEAD_WITH_KERNELS = Reason("dead-with-kernels", _dead_with_kernels)
IGNORED_IN_EVAL = Reason("ignored-in-eval", _ignored_in_eval)
FUSED_PART = Reason("fused-part", _fused_part)
LEFT_OUT = Reason("left-out", _left_out)
EXPERTS_DOMINATE = Reason("experts-dominate", _experts_dominate)
AS_PARAMETERS = Reason("as-parameters", _as_parameters)
SHARED_ADAPTER = Reason("shared-adapter", _shared_adapter)
TIED = Reason("tied", _tied)
TIED_TARGETS = Reason(
    "tied-targets",
    "{name} and {more} more share one weight and get an adapter each: merging would add all of them to it. Keep the "
    "adapter unmerged.",
)
SAVED = Reason("saved", _saved)
NO_TASK_TYPE = Reason(
    "no-task-type",
    "No task_type is set: {architecture} lacks the method for generation that PEFT's wrappers need.",
)
RELEASED_PARTS = Reason(
    "released-parts",
    "The built-in {model} is transformers' default configuration. {release} has other modules: {parts}. Plan your own model: "
    "lorascope plan FOLDER",
)
QUANTIZED = Reason("quantized", _quantized)
UNTRAINABLE = Reason(
    "quantization-untrainable",
    "transformers' Trainer refuses every adapter on this model while its {quantization} modules are packed. {fix}",
)
NAMES_ONLY = Reason(
    "names-only",
    'This plan rests on tensor names alone: model type "{model_type}" is unknown, so nobody has checked that its code '
    "uses these module names, or that PEFT adapts them. Try it on the loaded model first: get_peft_model raises where a "
    "name is wrong.",
)
GUESSED_ROLE = Reason("guessed-role", _guessed_role)
TRACED_DOUBT = Reason("traced-doubt", _traced_doubt)
