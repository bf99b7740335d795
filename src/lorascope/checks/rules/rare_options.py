"""The options that few people set: initializations, variants, token training, and a frozen adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lorascope.checks.context import Case
from lorascope.checks.entries import Asked
from lorascope.findings import Finding

# Code -> (the option that an error is about, what to do).
_ERRORS: Mapping[str, tuple[str, str]] = {
    "initialization": (
        "init_lora_weights",
        "Give init_lora_weights=True, or leave out what it does not fit.",
    ),
    "variant": ("variant", "Give one variant, and only what it fits; leave the others at None."),
    "tokens": ("trainable_token_indices", "Name an embedding of the model and rows that it has, and train it once."),
    "option-release": ("version", "Update PEFT (pip install -U peft), or leave the option out."),
}
_PLACES = {"initialization": "init_lora_weights", "frozen": "inference_mode", "variant": "variant"}
_FIXES: Mapping[str, str] = {
    "variant": "Load the model without quantization, or leave the variant out.",
    "initialization": "Nothing to do if that is meant; otherwise give init_lora_weights=True.",
    "frozen": "Give inference_mode=False to train.",
}


def rare_option_findings(case: Case, _asked: Asked) -> Iterator[Finding]:
    """`initialization`, `variant`, `tokens`, `option-release` and `frozen`."""
    known = _ERRORS.get(case.resolution.cause)
    if known:
        where, fix = known
        yield Finding(case.resolution.cause, "error", where, case.resolution.error, fix)
    for one in case.resolution.warnings:
        if one.code in _FIXES:
            where = _PLACES[one.code]
            yield Finding(one.code, "warning", where, one.message, _FIXES[one.code])
