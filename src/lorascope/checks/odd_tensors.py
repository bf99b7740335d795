"""Why PEFT has no place for some tensors of an adapter's file."""

from __future__ import annotations

import re
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.loaded_names import Arrival
from lorascope.checks.phrases import cut
from lorascope.checks.tensor_comparison import COPY_NAME, MAGNITUDE, OF_FACTOR, TensorComparison
from lorascope.findings import Severity
from lorascope.foreign_text import quoted
from lorascope.peft_rules.state_dict import PREFIX

_LONGEST_SHOWN = 300
_ADAPTER_NAME = re.compile(
    r"(\.lora_(?:(?:embedding_)?[AB]|magnitude_vector))\.(?!(?:weight|bias)$)([^.]+)(\.(?:weight|bias))?$"
)
# Endings of other programs' names for the factors, with the program: mlx-lm 0.32.2, tuner/lora.py; torchtune 0.6.1,
# modules/peft/lora.py; kohya's and diffusers' older form.
_OTHER_PROGRAMS = (
    (re.compile(r".*\.lora_[ab]$"), "mlx-lm, whose factors are also transposed"),
    (re.compile(r".*\.lora_[ab]\.weight$|.*\.magnitude$"), "torchtune"),
    (re.compile(r".*\.lora[._](?:down|up)\.weight$"), "image generation (kohya, diffusers)"),
)
_SAVE_AGAIN = "Save it anew with PEFT's save_pretrained, or rename the tensors in the file."


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """Why PEFT has no place for tensors.

    Attributes:
        message: What is so, after "3 of 12 tensors ".
        fix: What to do.
        severity: Of the finding.
        effect: What PEFT does with them.
        of_other_program: Another program wrote them, under names of its own.
    """

    message: str
    fix: str
    severity: Severity = "error"
    effect: str = "PEFT ignores them silently"
    of_other_program: bool = False


class OddTensors:
    """The odd tensors of a file by cause.

    Args:
        comparison: The file next to what PEFT would save.
        base: The base model that the configuration names, or empty.
    """

    def __init__(self, comparison: TensorComparison, base: str) -> None:
        self._comparison = comparison
        self._base = base

    @cached_property
    def by_cause(self) -> dict[Cause, list[tuple[Arrival, str]]]:
        """The tensors of each cause, with the name that each should have, or an empty one."""
        causes: dict[Cause, list[tuple[Arrival, str]]] = {}
        for arrival in self._comparison.odd:
            cause, place = self._cause(arrival.name)
            causes.setdefault(cause, []).append((arrival, place))
        return causes

    @cached_property
    def places(self) -> frozenset[str]:
        """The names that odd tensors should have."""
        return frozenset(place for tensors in self.by_cause.values() for _, place in tensors)

    @cached_property
    def of_other_program(self) -> bool:
        """Another program wrote some of them."""
        return any(cause.of_other_program for cause in self.by_cause)

    @cached_property
    def _fronts(self) -> dict[str, set[str]]:
        """The beginnings of wanted names, by their ends."""
        fronts: dict[str, set[str]] = {}
        for name in self._comparison.wanted.tensors:
            front, tail = _split(name.removeprefix(PREFIX))
            fronts.setdefault(tail, set()).add(front)
        return fronts

    def _cause(self, name: str) -> tuple[Cause, str]:
        for pattern, program in _OTHER_PROGRAMS:
            if pattern.match(name):
                fix = "Export it from there in PEFT's format, or convert names and shapes."
                return Cause(f"have names of {program}", fix, of_other_program=True), ""
        plain = _ADAPTER_NAME.sub(r"\1\3", name)
        if plain != name and self._comparison.place(plain):
            adapter = (_ADAPTER_NAME.search(name) or ["", "", ""])[2]
            return _adapter_name(adapter), plain
        plain = COPY_NAME.sub(".", plain)
        core = plain
        while core.startswith("base_model."):
            core = core.removeprefix("base_model.").removeprefix("model.")
        for guess in dict.fromkeys((plain, PREFIX + core)):
            if guess != name and (wanted := self._comparison.place(guess)):
                return _wrong_prefix(name, guess == plain), wanted.name
        front, tail = _split(core)
        fronts = self._fronts.get(tail, set())
        if len(fronts) == 1:
            (right,) = fronts
            return _other_front(front, right, self._comparison.seen.converts), f"{PREFIX}{right}{tail}"
        return self._no_place(name, core), ""

    def _no_place(self, name: str, core: str) -> Cause:
        comparison, config = self._comparison, self._comparison.config
        factor = OF_FACTOR.search(core)
        if factor is None:
            return self._base_tensor(name)
        module = core[: factor.start()]
        owner = ".".join(part for part in module.split(".") if part != "base_layer")
        adapted = owner in comparison.adapted
        if adapted and MAGNITUDE in core and not config.use_dora:
            return Cause("are DoRA's magnitudes, and the configuration has use_dora=false", 'Set "use_dora": true.')
        if adapted and core.endswith(".lora_B.bias") and not config.lora_bias:
            return Cause("are biases of factors, and the configuration has lora_bias=false", 'Set "lora_bias": true.')
        if owner in comparison.model.module_by_name:
            return Cause(
                "belong to modules that the configuration does not target",
                "Name them in target_modules (or target_parameters), if they were trained.",
            )
        known = ", as far as names of earlier transformers releases are known here" if comparison.seen.converts else ""
        return Cause(
            f"belong to modules that {comparison.model.architecture or 'this model'} does not have{known}",
            f"Check it on the base that it was trained on{self._base}.",
        )

    def _base_tensor(self, name: str) -> Cause:
        """Why a tensor that is no factor has no place."""
        if name in self._comparison.base_names:
            return Cause(
                "are the base model's own, which the configuration does not train",
                "Take them out of the file, or name their modules in modules_to_save if they were trained.",
                "warning",
                "PEFT overwrites the base model's numbers with them on loading, for all adapters",
            )
        return Cause(
            "are no part of a LoRA adapter on this model", "Take them out of the file, if nothing else needs them."
        )


def _adapter_name(adapter: str) -> Cause:
    message = f"have the name of an adapter, {quoted(adapter)}, in theirs"
    if adapter == "default":
        # Without a name given, PEFT calls the adapter so and finds them by chance.
        effect = "PEFT finds them only under that adapter name, and servers may not find them"
        return Cause(message, _SAVE_AGAIN, "warning", effect)
    return Cause(message, _SAVE_AGAIN, effect="PEFT ignores them silently under any other adapter name")


def _wrong_prefix(name: str, only_copy: bool) -> Cause:
    if only_copy:
        return Cause("have PEFT's own modules_to_save in their names, which a saved adapter has not", _SAVE_AGAIN)
    times = name.count("base_model.")
    if not times:
        return Cause(f'lack the prefix "{PREFIX}" that PEFT gives every name', _SAVE_AGAIN)
    how = f"{times} times" if times > 1 else "not as PEFT writes it"
    return Cause(f'have the prefix "{PREFIX}" {how}', _SAVE_AGAIN)


def _other_front(front: str, right: str, converts: bool) -> Cause:
    begin = f'begin with "{PREFIX}{cut(front, _LONGEST_SHOWN)}" where those of this model begin with "{PREFIX}{right}"'
    if converts:
        begin += ", which is none of the earlier names that PEFT renames, as far as these are known here"
    return Cause(
        f"{begin} (the same layers in another class of the model)",
        "Load the class that it was trained on (with or without its head, as text or as vision-language model), or rename "
        "the tensors.",
    )


def _split(name: str) -> tuple[str, str]:
    """A name in two, before the last word before its first number."""
    match = re.match(r"(.*?)((?:[^.]+\.)\d+\..*)", name)
    return (match[1], match[2]) if match else ("", name)
