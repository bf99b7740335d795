"""Keeps foreign configurations from reading, fetching or running anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.foreign_text import quoted

# Keys by which a configuration names code, files, repositories or kernels, or turns transformers' own reading of it around
# (`attribute_map` gives other names to keys, `auto_map` among them). None of them changes the modules of a native model.
_DROPPED = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "configuration_files",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "_attn_implementation_autoset",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "name_or_path",
        "_name_or_path",
        "_commit_hash",
        "_from_auto",
        "_from_pipeline",
        "_auto_class",
        "attribute_map",
        "base_config_key",
        "sub_configs",
        "sub_configs_defaults",
        "trust_remote_code",
        "use_pretrained_backbone",
    }
)
# Names of timm's models, and what they are made with: `local-dir:…` and `hf-hub:…` name folders and repositories, some
# arguments files and devices.
_TIMM_NAMES = frozenset({"architecture", "backbone", "timm_model_name"})
_TIMM_ARGUMENTS = frozenset({"model_args", "backbone_kwargs"})
_TIMM_READS = re.compile(r"pretrained\w*|checkpoint\w*|device|dtype|\w*(path|dir|file|url|cache|hub|weights)\w*")
_WORD = re.compile(r"[\w.+-]{0,200}", re.ASCII)
# Hub ids are refused where they are built (the build is offline), so that a slash passes here.
_TIMM_NAME = re.compile(r"[\w./+-]{1,200}", re.ASCII)

# As transformers 5 writes numbers that JSON does not have, and reads them again: {"__float__": "Infinity"}.
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

# Released configurations have at most 45,000 values, six deep.
MOST_CONFIG_BYTES = 16 * 2**20
MOST_VALUES = 500_000
_MOST_NESTED = 40
# The largest sizes of released models are vocabularies, of some 260,000; positions and rotary bases reach 10^9.
LARGEST_COUNT = 4_000_000
_LARGEST = 2**31
# Integers that no loop depends on: tokens, positions, lengths.
_FREE = re.compile(
    r"(?!(num|n)_)\w*(_id|_ids|_index|_token|_tokens|position\w*|max_\w*len\w*|\w*length|window\w*|rate|pixels|range|eps)"
    r"|n_ctx|n_positions|max_seq\w*|num_positions"
)
# And those that are only computed with. A rotary base of 3.6 · 10^9 has been released.
_FIGURES = re.compile(r"\w*(theta|base|seed|freq\w*|factor|clip\w*|_value|scale|limit)")
_MOST_FIGURE = 2**53
# A tokenizer without a longest text writes 10^30 there; no model reads it.
_UNREAD = re.compile(
    r"(tokenizer_)?model_max_length|transformers_version|\w+_params|total_size|size_in_bytes|num_parameters"
)


def buildable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without keys that read, fetch or run something.

    At every depth. transformers' own code is built of the copy, as it would be of the original.
    """
    return {key: _copied(value) for key, value in config.items() if not _is_dropped(key)}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        tag = value.get("__float__")
        return _FLOATS[tag] if len(value) == 1 and isinstance(tag, str) and tag in _FLOATS else buildable(value)
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _is_dropped(key: str) -> bool:
    return key in _DROPPED or key.startswith("__")


def build_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Why nothing is built: huge values, or files for timm."""
    waiting: list[tuple[str, str, Any, int]] = [("", key, value, 1) for key, value in config.items()]
    count = 0
    while waiting:
        path, key, value, depth = waiting.pop()
        here = f"{path}{key}"
        count += 1
        if count + len(waiting) > MOST_VALUES:
            yield f"holds more than {MOST_VALUES:,} values"
            return
        if depth > _MOST_NESTED:
            yield f"is nested deeper than {_MOST_NESTED} levels"
            return
        if isinstance(value, dict):
            if key in _TIMM_ARGUMENTS:
                yield from _argument_faults(here, value)
            waiting.extend((f"{here}.", str(name), inner, depth + 1) for name, inner in value.items())
        elif isinstance(value, list):
            waiting.extend((path, key, inner, depth + 1) for inner in value)
        elif isinstance(value, int | float):
            yield from _number_faults(here, key, value)
        elif isinstance(value, str) and key in _TIMM_NAMES and not _TIMM_NAME.fullmatch(value):
            yield f"{here} is {quoted(value)}, not the name of a model"


def _number_faults(here: str, key: str, value: float) -> Iterator[str]:
    if isinstance(value, bool) or _UNREAD.fullmatch(key):
        return
    if isinstance(value, int):
        most = LARGEST_COUNT
        if _FIGURES.fullmatch(key):
            most = _MOST_FIGURE
        elif _FREE.fullmatch(key):
            most = _LARGEST
        if abs(value) > most:
            yield f"{here} is {quoted(value)}, more than {most:,}" if value > 0 else f"{here} is {quoted(value)}"


def _argument_faults(here: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    for name, value in arguments.items():
        if not _WORD.fullmatch(name) or name.startswith("_") or _TIMM_READS.fullmatch(name):
            yield f"{here} has {quoted(name)}, by which timm would read something else"
        elif not _is_plain(value):
            yield f"{here}.{name} is {quoted(value)}, not a number, a word or a list of them"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
