"""Findings on trainers' files, which the trainers' own rooms make."""

from __future__ import annotations

from lorascope.checks.rule import FindingRule

UNKNOWN_KEY = FindingRule(
    "unknown-key",
    "error",
    "PEFT or the trainer does not know a key",
    "Some stop at it, others drop it silently and train without it.",
)
IGNORED_KEY = FindingRule(
    "ignored-key",
    "warning",
    "the trainer knows a key and does nothing with it here",
    "It belongs to another mode or method of the trainer.",
)
ABBREVIATED = FindingRule(
    "abbreviated",
    "note",
    "the trainer's parser completes an option",
    "argparse takes a unique beginning of an option for the whole.",
)
NO_ADAPTER = FindingRule(
    "no-adapter",
    "error",
    "the trainer's configuration asks for no adapter",
    "It trains the model in full, or nothing.",
)
TRAINER_FILTER = FindingRule(
    "trainer-filter",
    "warning",
    "the trainer's own rules add or drop targets",
    "What it adapts is not what its configuration names.",
)
