"""Tensors of an adapter: missing, unexpected, of another size or rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import cut, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.foreign_text import literal, quoted
from lorascope.names import listed
from lorascope.peft_rules.parameter_count import swaps_factors
from lorascope.peft_rules.releases import NEWEST, release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import SavedTensor
from lorascope.plans.name_forms import shortest_endings

if TYPE_CHECKING:
    from lorascope.checks.odd_tensors import OddTensors
    from lorascope.checks.tensor_comparison import Mismatch, TensorComparison

TENSOR_SHAPE = FindingRule(
    "tensor-shape",
    "error",
    "a tensor has another shape than the model's weight",
    "The adapter belongs to another base, the vocabulary was resized, or shards were not gathered. PEFT raises.",
)
TENSOR_RANK = FindingRule(
    "tensor-rank",
    "error",
    "a tensor has another rank than the configuration",
    "PEFT raises a size mismatch on loading.",
)
TENSOR_UNEXPECTED = FindingRule(
    "tensor-unexpected",
    "error",
    "nothing asks for a tensor",
    "PEFT ignores tensors under names that it does not look for, so what was trained is lost silently.",
)
TENSOR_MISSING = FindingRule(
    "tensor-missing",
    "error",
    "a tensor that the configuration asks for is not in the file",
    "PEFT warns at most and leaves the weight as it is initialized: B at zero does nothing.",
)

_MOST_NAMED = 6
# Real files have one or two; a hostile one has as many as it likes.
# The last release that reads the factors of fused experts the other way round.
_BEFORE_SWAP = "0.18.1"
_MOST_CAUSES = 8
_LONGEST_SHOWN = 300


@finds(TENSOR_SHAPE)
def find_ungathered(context: CheckContext) -> Iterator[Finding]:
    """Shards that were saved before they were gathered."""
    comparison = context.comparison
    empty = [mismatch for mismatch in comparison.mismatches if mismatch.ungathered] if comparison else []
    if empty:
        example = f"{_short(empty[0].wanted.name)} of {list(empty[0].shape)}"
        message = (
            f"{plural(len(empty), 'tensor')} {_have(empty)} an empty or missing dimension, such as {example}: shards of "
            "DeepSpeed ZeRO-3 or FSDP that were not gathered before saving. PEFT raises on loading."
        )
        fix = (
            "Their numbers are not in the file. Gather the parameters and save again (PEFT names the calls when it saves "
            "such tensors), or convert the training's own checkpoint."
        )
        yield TENSOR_SHAPE.finding(_owners(mismatch.wanted for mismatch in empty), message, fix)


@finds(TENSOR_RANK)
def find_other_ranks(context: CheckContext) -> Iterator[Finding]:
    """Factors of another rank than the configuration's."""
    comparison = context.comparison
    groups: dict[tuple[int, int], list[SavedTensor]] = {}
    for mismatch in comparison.mismatches if comparison else ():
        rank = mismatch.rank
        if comparison and rank is not None and comparison.resized(mismatch) is None and not mismatch.ungathered:
            groups.setdefault((rank, mismatch.wanted.rank), []).append(mismatch.wanted)
    for (rank, configured), tensors in groups.items():
        owners = {tensor.owner for tensor in tensors}
        many = plural(len(owners), "weight")
        message = (
            f"{many} {_have(owners)} rank {rank} in the file and {configured} in the configuration: PEFT raises on loading "
            "(size mismatch)."
        )
        fix = f"{_rank_fix(context, comparison, owners, rank)} The scale is lora_alpha / r: check that it is what was trained."
        yield TENSOR_RANK.finding(_owners(tensors), message, fix)


def _rank_fix(context: CheckContext, comparison: TensorComparison | None, owners: set[str], rank: int) -> str:
    adapted = comparison.adapted if comparison else frozenset()
    if owners == adapted and not context.config.rank_pattern:
        return f'Set "r": {rank} in adapter_config.json.'
    keys = shortest_endings(sorted(owners), adapted, numbers=False) or sorted(owners)
    shown = ", ".join(f"{literal(key)}: {rank}" for key in keys[:_MOST_NAMED])
    return f"Set rank_pattern in adapter_config.json: {shown}{', …' if len(keys) > _MOST_NAMED else ''}."


@finds(TENSOR_SHAPE)
def find_resized(context: CheckContext) -> Iterator[Finding]:
    """A vocabulary that was resized in training."""
    comparison = context.comparison
    groups: dict[tuple[int, int], list[SavedTensor]] = {}
    for mismatch in comparison.mismatches if comparison else ():
        if comparison and (rows := comparison.resized(mismatch)):
            groups.setdefault(rows, []).append(mismatch.wanted)
    for (here, there), tensors in groups.items():
        message = (
            f"The file has a vocabulary of {here} tokens, the model one of {there}: the embeddings were resized in training, "
            "and PEFT raises on loading."
        )
        fix = (
            f"Resize the model first: model.resize_token_embeddings({here}), or check on the base with that vocabulary."
        )
        yield TENSOR_SHAPE.finding(_owners(tensors), message, fix)


@finds(TENSOR_SHAPE)
def find_other_sizes(context: CheckContext) -> Iterator[Finding]:
    """Tensors of a model with other sizes."""
    comparison = context.comparison
    if not comparison or not comparison.other_sizes:
        return
    mismatches = comparison.other_sizes
    examples = ", ".join(
        f"{_short(mismatch.wanted.name)} {list(mismatch.shape)} where this model has {list(mismatch.wanted.shape)}"
        for mismatch in {_short(mismatch.wanted.name): mismatch for mismatch in mismatches}.values()
    )
    message = (
        f"{plural(len(mismatches), 'tensor')} of {len(comparison.matches)} have other sizes than this model's weights: "
        f"{cut(examples, _LONGEST_SHOWN)}. PEFT raises on loading (size mismatch)."
    )
    fix = f"Check it on the base that it was trained on{_named_base(context)}."
    if release := _release_of_sizes(context):
        message += (
            f" PEFT {release} saves these sizes, and {context.release_name} reads the factors the other way round."
        )
        fix = f"Load it with peft=={release}, and train it again for newer ones."
    yield TENSOR_SHAPE.finding(_owners(mismatch.wanted for mismatch in mismatches), message, fix)


def _release_of_sizes(context: CheckContext) -> str:
    """Another release of PEFT that saves tensors of the file's sizes; empty if none does."""
    for release in (_BEFORE_SWAP, NEWEST):
        if swaps_factors(release_of(release)) == swaps_factors(context.release) or context.tensors is None:
            continue
        from lorascope.checks.tensor_comparison import TensorComparison  # with what reads tables of names

        resolution = resolve(context.model, context.config, release)
        there = TensorComparison(context.model, context.config, resolution, release, context.tensors)
        if not resolution.refusal and not there.mismatches:
            return release
    return ""


@finds(TENSOR_UNEXPECTED, TENSOR_MISSING)
def find_odd_names(context: CheckContext) -> Iterator[Finding]:
    """Names that PEFT has no place for, missing ones, and renamed ones."""
    comparison = context.comparison
    if comparison is None:
        return
    from lorascope.checks.odd_tensors import OddTensors  # with what reads tables of names

    odd = OddTensors(comparison, _named_base(context))
    yield from _unexpected(odd, len(context.tensors or ()))
    yield from _missing(context, comparison, odd)
    yield from _converted(comparison)


def _unexpected(odd: OddTensors, total: int) -> Iterator[Finding]:
    causes = sorted(odd.by_cause.items(), key=lambda item: -len(item[1]))
    for cause, tensors in causes[:_MOST_CAUSES]:
        sources = [source for arrival, _ in tensors for source in arrival.sources]
        example = quoted(sources[0])
        message = f"{len(sources):,} of {plural(total, 'tensor')} {cause.message}, such as {example}: {cause.effect}."
        yield TENSOR_UNEXPECTED.finding(_holders(sources), message, cause.fix, cause.severity)
    rest = [source for _, tensors in causes[_MOST_CAUSES:] for arrival, _ in tensors for source in arrival.sources]
    if rest:
        message = (
            f"{len(rest):,} of {plural(total, 'tensor')} have names that PEFT has no place for, for "
            f"{len(causes) - _MOST_CAUSES} further reasons."
        )
        fix = "Look at the findings before: a file with so many kinds of names was not saved by PEFT."
        yield TENSOR_UNEXPECTED.finding(_holders(rest), message, fix)


def _missing(context: CheckContext, comparison: TensorComparison, odd: OddTensors) -> Iterator[Finding]:
    """What is missing and not in the file under another name."""
    wanted, seen = comparison.wanted, comparison.seen
    if seen.uneven:
        message = (
            "Tensors of single experts are missing or have different shapes, so PEFT cannot join them to those of the fused "
            "experts, and raises on loading."
        )
        fix = "Save the adapter again with all experts, or adapt the fused experts: target_parameters."
        yield TENSOR_MISSING.finding(_holders(seen.uneven), message, fix)
    missing = comparison.missing(odd.places)
    nothing_known = odd.of_other_program and not comparison.has_factors
    if not seen.uneven and not nothing_known:
        yield from _missing_factors(context, comparison, [tensor for tensor in missing if comparison.is_factor(tensor)])
    copies = [tensor for tensor in missing if tensor.part == "copy"]
    if copies:
        message = (
            f"{plural(len(copies), 'tensor')} of modules that modules_to_save names {_are(copies)} not in the file, such as "
            f"{quoted(copies[0].name)}: PEFT raises a KeyError on loading."
        )
        fix = (
            "Save the adapter again with these modules, or take them out of modules_to_save if they were not trained (a "
            "task_type of classification adds its head by itself)."
        )
        yield TENSOR_MISSING.finding(_owners(copies), message, fix)
    biases = [tensor for tensor in missing if tensor.part == "bias"]
    if biases and wanted.exact:
        older = " PEFT before 0.21 did not save those of bias=lora_only." if context.config.bias != "all" else ""
        message = (
            f"{plural(len(biases), 'tensor')} that bias={context.config.bias!r} trains {_are(biases)} not in the file: PEFT "
            f"silently keeps the base model's own.{older}"
        )
        fix = 'Save the adapter again, or set "bias": "none" if they were not trained.'
        yield TENSOR_MISSING.finding(_owners(biases), message, fix, "warning")


def _missing_factors(
    context: CheckContext, comparison: TensorComparison, missing: list[SavedTensor]
) -> Iterator[Finding]:
    parts_of: dict[str, set[str]] = {}
    for tensor in missing:
        parts_of.setdefault(tensor.owner, set()).add(tensor.part)
    adapted = len(comparison.adapted)
    dead = [owner for owner, parts in parts_of.items() if "up" in parts]
    random = [owner for owner, parts in parts_of.items() if "down" in parts and "up" not in parts]
    partial = [owner for owner, parts in parts_of.items() if not parts & {"up", "down"}]
    if dead:
        message = (
            f"{len(dead)} of {adapted} adapted weights have no B in the file. PEFT warns of missing adapter keys at most and "
            "leaves B at zero, so the adapter does nothing there."
        )
        fix = (
            "Take them out of the targets if they were not trained; otherwise save the adapter again, or check it on the "
            f"base that it was trained on{_named_base(context)}."
        )
        yield TENSOR_MISSING.finding(listed(dead, _MOST_NAMED), message, fix)
    if random:
        message = (
            f"{len(random)} of {adapted} adapted weights have B in the file and no A. PEFT warns of missing adapter keys at "
            "most and draws A at random, so B turns noise into output."
        )
        fix = "Save the adapter again, both factors of each weight."
        yield TENSOR_MISSING.finding(listed(random, _MOST_NAMED), message, fix)
    if partial:
        parts = {part for owner in partial for part in parts_of[owner]}
        words = {"magnitude": "magnitudes (use_dora)", "up_bias": "biases (lora_bias)"}
        lacking = " and ".join(word for part, word in words.items() if part in parts)
        message = (
            f"{len(partial)} of {adapted} adapted weights lack their {lacking} in the file. PEFT leaves them as it "
            "initializes them."
        )
        fix = "Save the adapter again, or switch the option off in its configuration if it was trained without."
        yield TENSOR_MISSING.finding(listed(partial, _MOST_NAMED), message, fix)


def _converted(comparison: TensorComparison) -> Iterator[Finding]:
    """Notes on names of earlier releases that PEFT knows how to read."""
    for sources, what in (
        (comparison.seen.renamed, "renames them"),
        (comparison.seen.merged, "joins them to those of the fused experts"),
    ):
        if sources:
            of = " of single experts" if sources == comparison.seen.merged else ""
            message = (
                f"{plural(len(sources), 'tensor')}{of} have names of transformers before 5. PEFT 0.19 or later {what} when "
                "it loads them with transformers 5; servers that read the file themselves may not know them."
            )
            fix = "Load it once with PEFT and save it anew, for the names of today."
            yield TENSOR_UNEXPECTED.finding(_holders(sources), message, fix, "note")


def _named_base(context: CheckContext) -> str:
    name = context.given.get("base_model_name_or_path")
    return f": {quoted(name)} by its configuration" if isinstance(name, str) and name else ""


def _holders(sources: Iterable[str]) -> str:
    """The modules of factors, or the tensors themselves."""
    holders: dict[str, None] = {}
    for name in sources:
        match = re.search(r"\.lora[._]", name)
        holders[name[: match.start()] if match else name] = None
    return listed(holders, _MOST_NAMED)


def _short(name: str) -> str:
    """The last words of a tensor's name: its layer's and its own."""
    return ".".join(part for part in name.split(".") if not part.isdigit()).rpartition("self_attn.")[2][-60:]


def _owners(tensors: Iterable[SavedTensor]) -> str:
    return listed(dict.fromkeys(tensor.owner for tensor in tensors), _MOST_NAMED)


def _have(things: list[Mismatch] | set[str]) -> str:
    return "has" if len(things) == 1 else "have"


def _are(things: list[SavedTensor]) -> str:
    return "is" if len(things) == 1 else "are"
