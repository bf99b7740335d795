"""What a server does not take."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.rule import FindingRule
from lorascope.findings import Finding
from lorascope.servers.types import Serving

NOT_SERVABLE = FindingRule(
    "not-servable",
    "error",
    "the server does not take the adapter",
    "It refuses it, or loads it and leaves weights out silently.",
)


def report_unservable(serving: Serving, where: str) -> Iterator[Finding]:
    """An error for each question that a server answers with no."""
    for answer in serving.answers:
        if answer.answer == "no":
            message = f"{serving.title} ({answer.question}): {answer.reason}"
            fix = "Change that, or merge the adapter and serve the merged model."
            yield NOT_SERVABLE.finding(where, message, fix)
