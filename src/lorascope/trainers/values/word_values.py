"""Words of a command line, as argparse and transformers' HfArgumentParser convert them."""

from __future__ import annotations

import math

from lorascope import light_dataclasses as dataclasses
from lorascope.trainers.number_limits import whole_number
from lorascope.trainers.options import ValueType

_TRUTHS = {
    **dict.fromkeys(("yes", "true", "t", "y", "1"), True),
    **dict.fromkeys(("no", "false", "f", "n", "0"), False),
}


def _truth(word: str) -> bool:
    if word.lower() not in _TRUTHS:
        raise ValueError
    return _TRUTHS[word.lower()]


def as_default(word: ValueType, value: ValueType) -> ValueType:
    """A file's value as an argparse default: strings are converted, others stay."""
    return dataclasses.replace(word, convert=lambda v: word.convert(v) if isinstance(v, str) else value.convert(v))


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError
    return number


TEXT = ValueType("one word", lambda word: word)
TEXTS = ValueType("one word or more", lambda word: [word], many=True)
TRUTH = ValueType("true or false", _truth, flag=True)
WHOLE = ValueType("a whole number", whole_number)
NUMBER = ValueType("a number", _finite)
