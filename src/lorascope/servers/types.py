"""Answers of a server about an adapter."""

from __future__ import annotations

from typing import Literal

from lorascope import light_dataclasses as dataclasses

# Whether something works. depends: it does for some releases, models or flags, and the reason says for which.
Verdict = Literal["yes", "no", "depends"]

# Servers as people write them.
TITLES = {"vllm": "vLLM", "sglang": "SGLang"}


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question about serving an adapter.

    Attributes:
        question: Its subject: `rank`, `targets`, `experts`, `options`, …
        answer: See `Verdict`.
        reason: Why, with the releases, weights and flags that matter.
        source: The server's release and file that the answer rests on.
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
        flags: Those to start the server with, such as `--max-lora-rank 16`.
    """

    server: str
    release: str
    answer: Verdict
    answers: tuple[Answer, ...]
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The server with its release, as people write it: `vLLM 0.33.0`."""
        return f"{TITLES[self.server]} {self.release}"
