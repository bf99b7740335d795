"""Forward passes that no tracing without numbers can follow: what they do must be said, not guessed."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import HIDDEN, VOCABULARY, WIDE, specimen, tokens

_TRUTH = {
    "a": "embedding.token",
    "b.#.p": "attention.self.qkv",
    "b.#.q": "attention.self.o",
    "b.#.r": "ffn.dense.up",
    "b.#.s": "ffn.dense.down",
    "c": "head.lm",
}


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p, self.q = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.r, self.s = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.p(x).chunk(3, -1)
        x = x + self.q(F.scaled_dot_product_attention(q, k, v))
        return x + self.s(F.relu(self.r(x)))


class _Hostile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Embedding(VOCABULARY, HIDDEN)
        self.b = nn.ModuleList(_Block() for _ in range(2))
        self.c = nn.Linear(HIDDEN, VOCABULARY)


@specimen(tokens(), _TRUTH, meta=False, hostile="asks a float that depends on weights which way to go")
class AsksAFloat(_Hostile):
    """Leaves early where the numbers say so: which blocks run is not known without weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.b[0](self.a(tokens))
        if x.mean() > 1e9:
            return self.c(x)
        return self.c(self.b[1](x))


@specimen(
    tokens(),
    _TRUTH,
    meta=False,
    unreached=frozenset({"c"}),
    hostile="raises after its last block",
)
class Raises(_Hostile):
    """Stops with an error of its own."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.a(tokens)
        for block in self.b:
            x = block(x)
        raise NotImplementedError("no loss is set")


@specimen(tokens(), _TRUTH, meta=False, hostile="takes activations to NumPy and back")
class LeavesTorch(_Hostile):
    """Computes a step in NumPy, where nothing sees it."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.b[0](self.a(tokens))
        x = torch.from_numpy(x.detach().cpu().numpy().clip(-3.0, 3.0)).to(x.device)
        return self.c(self.b[1](x))
