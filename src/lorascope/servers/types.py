"""What a server does with an adapter, one answer per question."""

from __future__ import annotations

from typing import Literal

from lorascope import light_dataclasses as dataclasses

# Whether something works. depends: it does for some releases, models or flags, and the reason says for which.
Verdict = Literal["yes", "no", "depends"]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One question about serving an adapter, answered.

    Attributes:
        question: What is asked: `rank`, `targets`, `experts`, `options`, …
        answer: See `Verdict`.
        reason: Why, with the releases, weights and flags that it turns on.
        source: What the answer rests on: the server's release and file.
    """

    question: str
    answer: Verdict
    reason: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class Serving:
    """What a server does with an adapter.

    Attributes:
        server: `vllm` or `sglang`.
        release: The release whose rules were applied.
        answer: The worst of the answers.
        answers: Every question, in the order of their weight.
        flags: With which the server must be started, `--max-lora-rank 16` among them.
    """

    server: str
    release: str
    answer: Verdict
    answers: tuple[Answer, ...]
    flags: tuple[str, ...] = ()
