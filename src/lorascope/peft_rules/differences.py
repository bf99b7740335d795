"""Differences between releases of PEFT on one configuration.

Pure: it compares resolutions. A release that only has no wrapper for the task type is no difference here, because that
has nothing to do with what is adapted; `plans.compiler` reports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.agreement import releases_agree
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.parameter_count import swaps_factors
from lorascope.peft_rules.reasons import NOT_COVERED
from lorascope.peft_rules.releases import NEWEST, SUPPORTED_PEFT, release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution

# One release of each minor version, oldest first: within one, only the wrapper of a task type ever changed.
COMPARED = ("0.18.1", *SUPPORTED_PEFT)

_MOST_NAMES = 3
_MOST_SIZES = 2
_VERBS = ("refuse", "take", "adapt", "train", "swap")


@dataclasses.dataclass(frozen=True, slots=True)
class ReleaseDifference:
    """One way in which some releases of PEFT differ from another one.

    Attributes:
        releases: The releases that differ in this way, oldest first.
        message: What they do, in one sentence with the reason where they refuse.
        names: The adapted weights that differ, sorted; empty where it is all of them or none.
    """

    releases: tuple[str, ...]
    message: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True, slots=True)
class _Predicate:
    """The predicate of a sentence about releases, with its verbs in braces."""

    verdict: str
    rest: str
    names: tuple[str, ...] = ()


def read_differently(
    model: ModelMap, config: AdapterConfig, peft: str, own: Resolution | None = None
) -> tuple[ReleaseDifference, ...]:
    """How the other releases of `COMPARED` differ from one, oldest first.

    Compared are the adapted weights with their ranks and alphas, the number of trainable parameters, whether PEFT
    refuses, and whether the factors have the same shapes. Two releases that refuse for different reasons do the same.

    Args:
        model: The map of the model.
        config: The configuration.
        peft: The release to compare with.
        own: What that release does, where it is known.

    Raises:
        LorascopeError: The release is unknown.
    """
    own = _of_wrapped(model, config, peft, own)
    alike = own.refusal is None and release_of(peft) == release_of(NEWEST) and releases_agree(model, config)
    groups: dict[_Predicate, list[str]] = {}
    for release in COMPARED:
        if release_of(release) == release_of(peft) or (alike and release in SUPPORTED_PEFT):
            continue
        other = _of_wrapped(model, config, release)
        if other.warnings_of(NOT_COVERED):
            continue
        differences = [_difference(other, own)]
        if swaps_factors(release_of(release)) != swaps_factors(release_of(peft)):
            differences.append(_swapped(model, other, own))
        for predicate in filter(None, differences):
            groups.setdefault(predicate, []).append(release)
    return tuple(
        ReleaseDifference(tuple(releases), _sentence(predicate, releases), predicate.names)
        for predicate, releases in groups.items()
    )


def _of_wrapped(model: ModelMap, config: AdapterConfig, release: str, known: Resolution | None = None) -> Resolution:
    """The resolution, without a task type that alone makes PEFT refuse."""
    resolution = known or resolve(model, config, release)
    if (
        resolution.refusal is not None and config.task_type == "SEQ_2_SEQ_LM"
    ):  # the only task of which the wrapper changed
        return resolve(model, dataclasses.replace(config, task_type=None), release)
    return resolution


def _difference(other: Resolution, own: Resolution) -> _Predicate | None:
    """How another release differs; None if it does the same."""
    if other.refusal is not None:
        return None if own.refusal is not None else _Predicate("{refuse} it", f": {other.refusal}")
    if own.refusal is not None:
        names = [weight.name for weight in other.adapted]
        what = f"{_counted(len(names))}: {listed(names, _MOST_NAMES)}" if names else "nothing"
        return _Predicate("{take} it and {adapt}", f" {what}.")
    theirs = {weight.name: weight for weight in other.adapted}
    ours = {weight.name: weight for weight in own.adapted}
    lost, gained = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    both = sorted(theirs.keys() & ours.keys())
    resized = [name for name in both if _size(theirs[name]) != _size(ours[name])]
    parts = []
    if lost:
        parts.append(f"{listed(lost, _MOST_NAMES)} {_be(lost)} not adapted")
    if gained:
        parts.append(f"{listed(gained, _MOST_NAMES)} {_be(gained)} adapted as well")
    parts += _size_parts(resized, theirs, ours)
    if not parts:
        if other.trainable == own.trainable:
            return None
        counts = f" {other.trainable:,} parameters, not {own.trainable:,}, for the same adapted weights."
        return _Predicate("{train}", counts)
    if len(theirs) != len(ours):
        which = f"{_counted(len(theirs))}, not {len(ours)}"
    else:
        which = "other weights" if lost else "the same weights otherwise"
    return _Predicate("{adapt}", f" {which}: {'; '.join(parts)}.", tuple(sorted({*lost, *gained, *resized})))


def _swapped(model: ModelMap, other: Resolution, own: Resolution) -> _Predicate | None:
    """The weights whose factors one of two releases swaps; None without any."""
    adapted = {weight.name for weight in other.adapted} & {weight.name for weight in own.adapted}
    names = sorted(
        name
        for owner, name, shape in parameter_names(model)
        if name in adapted and len(shape) == 3 and not model.module_by_name[owner].transposed
    )
    if not names:
        return None
    which = f" the shapes of the two factors of {listed(names, _MOST_NAMES)}"
    return _Predicate("{swap}", f"{which}: an adapter saved by the one does not fit the other.", tuple(names))


def _size(weight: Adapted) -> tuple[int, float]:
    return weight.rank, weight.alpha


def _size_parts(names: Sequence[str], theirs: Mapping[str, Adapted], ours: Mapping[str, Adapted]) -> list[str]:
    """One part of the sentence per pair of sizes, and the number left."""
    groups: dict[tuple[int, float, int, float], list[str]] = {}
    for name in names:
        groups.setdefault((*_size(theirs[name]), *_size(ours[name])), []).append(name)
    parts = []
    for (rank, alpha, own_rank, own_alpha), members in list(groups.items())[:_MOST_SIZES]:
        sizes = []
        if rank != own_rank:
            sizes.append(f"rank {rank}, not {own_rank}")
        if alpha != own_alpha:
            sizes.append(f"alpha {alpha:g}, not {own_alpha:g}")
        have = "has" if len(members) == 1 else "have"
        parts.append(f"{listed(members, _MOST_NAMES)} {have} {' and '.join(sizes)}")
    if len(groups) > _MOST_SIZES:
        rest = sum(len(members) for members in list(groups.values())[_MOST_SIZES:])
        parts.append(f"{_counted(rest)} more {'has' if rest == 1 else 'have'} another rank or alpha")
    return parts


def _sentence(predicate: _Predicate, releases: Sequence[str]) -> str:
    """The sentence about some releases, verbs in number."""
    verbs = {verb: f"{verb}s" if len(releases) == 1 else verb for verb in _VERBS}
    return f"PEFT {_named(releases)} {predicate.verdict.format(**verbs)}{predicate.rest}"


def _named(releases: Sequence[str]) -> str:
    """The releases in words: `0.18.1 to 0.20.0` where none is left out."""
    if len(releases) == 1:
        return releases[0]
    places = [COMPARED.index(release) for release in releases]
    if len(places) > 2 and places[-1] - places[0] == len(places) - 1:
        return f"{releases[0]} to {releases[-1]}"
    return f"{', '.join(releases[:-1])} and {releases[-1]}"


def _counted(count: int) -> str:
    return "1 weight" if count == 1 else f"{count} weights"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
