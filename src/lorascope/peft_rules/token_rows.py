"""Which rows of embeddings `trainable_token_indices` trains (`set_additional_trainable_modules`).

PEFT takes every module whose name *ends* with an entry, with no dot in between, as it does for `modules_to_save`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.modules_to_save import SAVING_TWICE
from lorascope.peft_rules.parameter_count import read_shape
from lorascope.peft_rules.types import AdapterConfig

_DEFAULT = "embed_tokens"


@dataclasses.dataclass(frozen=True, slots=True)
class TokenRows:
    """The rows that train.

    Attributes:
        modules: Module name to (rows, width), in module order.
        refusal: Why PEFT stops; None if the rows train.
        uncovered: What the rules do not cover, so that these rows are not among the modules; or None.
    """

    modules: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    refusal: Diagnostic | None = None
    uncovered: Diagnostic | None = None

    @property
    def trainable(self) -> int:
        """Scalars that train."""
        return sum(rows * width for rows, width in self.modules.values())


def token_rows(model: ModelMap, config: AdapterConfig, wraps: Iterable[str], saved: Iterable[str]) -> TokenRows:
    """The rows that a configuration trains on a model.

    Args:
        model: The map of the model.
        config: The configuration.
        wraps: The modules that carry an adapter, of their own or of their parameters.
        saved: The modules that `modules_to_save` copies.
    """
    given = config.trainable_token_indices
    if given is None:
        return TokenRows()
    rows_of = dict(given) if isinstance(given, Mapping) else {model.input_embeddings or _DEFAULT: given}
    if both := sorted(rows_of.keys() & set(config.modules_to_save or ())):
        return TokenRows(refusal=reasons.TOKENS_SAVED.about(both[0]))
    tied = tied_modules(model)
    skipped, refusal = _tied_entries(model, config, rows_of, tied)
    if refusal is not None:
        return TokenRows(refusal=refusal)
    adapted, copied = set(wraps), set(saved)
    sizes: dict[str, tuple[int, int]] = {}
    uncovered: Diagnostic | None = None
    for entry, rows in rows_of.items():
        if entry in skipped:
            continue
        names = [module.name for module in model.modules if module.name.endswith(entry)]
        if not names:
            return TokenRows(refusal=reasons.TOKENS_NAMELESS.about(entry))
        for name in names:
            module = model.module_by_name[name]
            if name in adapted:
                return TokenRows(refusal=reasons.TOKENS_ADAPTED.about(name))
            shape = read_shape(module, "weight")
            if module.kind not in ("linear", "embedding") or shape is None:
                return TokenRows(refusal=reasons.TOKENS_OF_OTHERS.about(name, class_name=module.class_name))
            if any(name.startswith(f"{copy}.") for copy in copied) or name in sizes:
                uncovered = reasons.TOKENS_WITHIN_SAVED.about(name)
                continue
            beyond = [row for row in rows if not -shape[0] <= row < shape[0]]
            if beyond:
                return TokenRows(refusal=reasons.TOKENS_BEYOND.about(name, rows=shape[0], row=beyond[0]))
            sizes[name] = (len(rows), shape[1])
    if config.task_type in SAVING_TWICE and (both := sorted(copied & (tied | sizes.keys()))):
        return TokenRows(uncovered=reasons.TOKENS_SAVED_TWICE.about(both[0], task_type=config.task_type))
    return TokenRows(sizes, uncovered=uncovered)


def tied_modules(model: ModelMap) -> frozenset[str]:
    """Other modules that share the input embeddings' weight."""
    weight = f"{model.input_embeddings}.weight"
    owners = {name.rpartition(".")[0] for group in model.ties if weight in group for name in group}
    return frozenset(owners - {model.input_embeddings})


def _tied_entries(
    model: ModelMap, config: AdapterConfig, rows_of: Mapping[str, tuple[int, ...]], tied: frozenset[str]
) -> tuple[frozenset[str], Diagnostic | None]:
    """Tied entries that PEFT skips, and why it stops at others."""
    if len(rows_of) < 2 or not tied:
        return frozenset(), None
    same = [
        entry
        for entry in rows_of
        if model.input_embeddings.endswith(entry)
        or any(name.endswith(entry) or entry in name.split(".") for name in tied)
    ]
    if len(same) < 2:
        return frozenset(), None
    if any(rows_of[entry] != rows_of[same[0]] for entry in same):
        return frozenset(), reasons.TOKENS_UNEQUAL.about(*same) if config.ensure_weight_tying else None
    return frozenset(same) & tied, None
