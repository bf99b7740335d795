"""Styles of a third kind, kept away until the rules had been mended on `later`.

When they were traced first, 160 of their 204 weights got the role that they have, 16 a part of it, 10 a wider word for
it, 6 none and 12 a wrong one: eight where a sigmoid stands in place of the softmax, two whose zeros were taken for their
values, two of a pair of low rank with an activation between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.batch_2_blocks import _ENDS, _Attn, _attn, _Feed, _feed, _flat, _heads, _Model
from tests.zoo.specimens import BATCH, HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, causal, specimen, tokens


def _four() -> list[nn.Linear]:
    return [nn.Linear(HIDDEN, INNER) for _ in range(3)] + [nn.Linear(INNER, HIDDEN)]


class _DeepBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.first, self.second, self.third = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, HIDDEN)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        s = torch.einsum("bhqd,bhkd->bhqk", _heads(self.o(y)), _heads(self.m(y))) / 4
        s = s.masked_fill(causal(x.shape[1], x.device), -torch.inf)
        w = torch.exp(s - torch.logsumexp(s, -1, keepdim=True))
        x = x + self.p(_flat(w @ _heads(self.n(y))))
        y = F.layer_norm(x, (HIDDEN,))
        return x + self.third(self.act(self.second(self.act(self.first(y)))))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.o": "attention.self.q",
        "mid.#.m": "attention.self.k",
        "mid.#.n": "attention.self.v",
        "mid.#.p": "attention.self.o",
        "mid.#.first": "ffn.dense.up",
        "mid.#.second": "ffn.dense",
        "mid.#.third": "ffn.dense.down",
    },
)
class DeepFeed(_Model):
    """Softmax by logsumexp; three matrices in a feed-forward."""

    def __init__(self) -> None:
        super().__init__(_DeepBlock(), _DeepBlock())


class _SigmoidBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.feed = _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x, (HIDDEN,))
        w = torch.sigmoid(_heads(self.n(y)) @ _heads(self.o(y)).mT / 4 - 2.4)
        x = x + self.p(_flat(w.tril() @ _heads(self.m(y))))
        return x + self.feed(F.rms_norm(x, (HIDDEN,)))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.n": "attention.self.q",
        "mid.#.o": "attention.self.k",
        "mid.#.m": "attention.self.v",
        "mid.#.p": "attention.self.o",
        **_feed("mid.#.feed"),
    },
)
class SigmoidAttention(_Model):
    """A sigmoid in place of the softmax."""

    def __init__(self) -> None:
        super().__init__(_SigmoidBlock(), _SigmoidBlock())


class _ShortKeys(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.kk, self.vv = nn.Linear(LENGTH, 5, bias=False), nn.Linear(LENGTH, 5, bias=False)
        self.feed = _Feed()

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kk(self.m(x).transpose(1, 2)).transpose(1, 2), self.vv(self.n(x).transpose(1, 2)).transpose(1, 2)
        y = self.p(_flat(F.scaled_dot_product_attention(_heads(self.o(x)), _heads(k), _heads(v))))
        x = F.layer_norm(x + y, (HIDDEN,))
        return F.layer_norm(x + self.feed(x), (HIDDEN,))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.o": "attention.self.q",
        "mid.#.m": "attention.self.k",
        "mid.#.n": "attention.self.v",
        "mid.#.p": "attention.self.o",
        "mid.#.kk": "other | attention.self",
        "mid.#.vv": "other | attention.self",
        **_feed("mid.#.feed"),
    },
)
class ShortKeys(_Model):
    """Keys and values are shortened over time by a matrix (Linformer)."""

    def __init__(self) -> None:
        super().__init__(_ShortKeys(), _ShortKeys())


class _MinGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.zz, self.cc, self.back = nn.Linear(HIDDEN, INNER), nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)
        self.feed = _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        z, c = self.zz(y).sigmoid(), self.cc(y).tanh()
        h, rows = torch.zeros_like(z[:, 0]), []
        for t in range(x.shape[1]):
            h = (1 - z[:, t]) * h + z[:, t] * c[:, t]
            rows.append(h)
        x = x + self.back(torch.stack(rows, 1))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


@specimen(
    tokens(), {**_ENDS, "mid.#.zz": "mixer", "mid.#.cc": "mixer.in", "mid.#.back": "mixer.out", **_feed("mid.#.feed")}
)
class MinimalGru(_Model):
    """A gated recurrence step by step."""

    def __init__(self) -> None:
        super().__init__(_MinGru(), _MinGru())


class _NoisyExperts(nn.Module):
    COUNT = 4

    def __init__(self) -> None:
        super().__init__()
        self.attn = _Attn()
        self.sure, self.unsure = nn.Linear(HIDDEN, 4, bias=False), nn.Linear(HIDDEN, 4, bias=False)
        self.crowd = nn.ModuleDict({f"e{n}": _Feed() for n in range(4)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(F.layer_norm(x, (HIDDEN,)))
        y = F.layer_norm(x, (HIDDEN,))
        logits = self.sure(y) + 0.5 * F.softplus(self.unsure(y))
        top, number = logits.topk(2, -1)
        shares = torch.full_like(logits, float("-inf")).scatter(-1, number, top).softmax(-1)
        z = torch.stack([one(y) for one in self.crowd.values()], -1)
        return x + (z * shares[:, :, None]).sum(-1)


@specimen(
    tokens(),
    {
        **_ENDS,
        **_attn("mid.#.attn"),
        "mid.#.sure": "router",
        "mid.#.unsure": "router",
        **{
            f"mid.#.crowd.e{n}.{a}": r
            for n in range(4)
            for a, r in (("hot", "ffn.expert.up"), ("cold", "ffn.expert.down"))
        },
    },
)
class NoisyExperts(_Model):
    """Noisy top-k: two router matrices, all experts run, shares scattered."""

    def __init__(self) -> None:
        super().__init__(_NoisyExperts(), _NoisyExperts())


@specimen(
    lambda: {"words": torch.randint(0, VOCABULARY, (BATCH, LENGTH)), "picture": torch.randn(BATCH, 3, 16, 16)},
    {
        "w": "embedding.token",
        **_attn("a.#.f"),
        **_feed("a.#.g"),
        **_attn("b.#.f"),
        **_feed("b.#.g"),
        "pa": "head | embedding.projection",
        "pb": "head | embedding.projection",
    },
)
class TwoTowers(nn.Module):
    """Words and pictures side by side, compared at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.cut = nn.Embedding(VOCABULARY, HIDDEN), nn.Conv2d(3, HIDDEN, 4, 4)
        self.a = nn.ModuleList(nn.ModuleDict({"f": _Attn(), "g": _Feed()}) for _ in range(2))
        self.b = nn.ModuleList(nn.ModuleDict({"f": _Attn(), "g": _Feed()}) for _ in range(2))
        self.pa, self.pb = nn.Linear(HIDDEN, 30, bias=False), nn.Linear(HIDDEN, 30, bias=False)

    def forward(self, words: Tensor, picture: Tensor) -> Tensor:
        x, y = self.w(words), self.cut(picture).flatten(2).mT
        for block in self.a:
            x = x + block["f"](F.layer_norm(x, (HIDDEN,)))
            x = x + block["g"](F.layer_norm(x, (HIDDEN,)))
        for block in self.b:
            y = y + block["f"](F.layer_norm(y, (HIDDEN,)))
            y = y + block["g"](F.layer_norm(y, (HIDDEN,)))
        x, y = F.normalize(self.pa(x[:, -1]), dim=-1), F.normalize(self.pb(y.mean(1)), dim=-1)
        return 10 * x @ y.T


class _Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.e, self.feed = nn.Linear(7, HEADS), _Feed()

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        s = _heads(self.m(x)) @ _heads(self.n(x)).mT
        w = (s / 4 + self.e(edges).permute(0, 3, 1, 2)).softmax(-1)
        x = F.layer_norm(x + self.p(_flat(w @ _heads(self.o(x)))), (HIDDEN,))
        return F.layer_norm(x + self.feed(x), (HIDDEN,))


@specimen(
    lambda: {"nodes": torch.randn(BATCH, 9, 15), "edges": torch.randn(BATCH, 9, 9, 7)},
    {
        "inlet": "embedding",
        "mid.#.m": "attention.self.q",
        "mid.#.n": "attention.self.k",
        "mid.#.o": "attention.self.v",
        "mid.#.p": "attention.self.o",
        "mid.#.e": "attention.self.bias",
        **_feed("mid.#.feed"),
        "outlet": "head",
    },
)
class Graphs(nn.Module):
    """A graph transformer: edges give biases to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = nn.Linear(15, HIDDEN), nn.Linear(HIDDEN, 1)
        self.mid = nn.ModuleList([_Edges(), _Edges()])

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        x = self.inlet(nodes)
        for block in self.mid:
            x = block(x, edges)
        return self.outlet(x.sum(1))


class _OneVector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qa, self.qb = nn.Linear(HIDDEN, 20), nn.Linear(20, INNER)
        self.kv, self.oa, self.ob = nn.Linear(HIDDEN, HEAD), nn.Linear(INNER, 22), nn.Linear(22, HIDDEN)
        self.prefix = nn.Parameter(torch.randn(1, 3, HEAD))
        self.feed = _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        kv = torch.cat((self.prefix.expand(x.shape[0], -1, -1), self.kv(y)), 1)[:, None]
        w = (_heads(self.qb(F.silu(self.qa(y)))) @ kv.mT / 4).softmax(-1)
        x = x + self.ob(self.oa(_flat(w @ kv)))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.qa": "attention.self.q_a",
        "mid.#.qb": "attention.self.q_b",
        "mid.#.kv": "attention.self.kv",
        "mid.#.oa": "attention.self.o_a",
        "mid.#.ob": "attention.self.o_b",
        "mid.#.prefix": "other | attention.self.kv",
        **_feed("mid.#.feed"),
    },
)
class OneVector(_Model):
    """One vector is key and value; low-rank queries and outputs; a learned prefix."""

    def __init__(self) -> None:
        super().__init__(_OneVector(), _OneVector())


class _Relative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.r, self.feed = nn.Linear(HIDDEN, INNER, bias=False), _Feed()
        self.u, self.v = nn.Parameter(torch.randn(HEADS, 1, HEAD)), nn.Parameter(torch.randn(HEADS, 1, HEAD))

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        q, k = _heads(self.m(x)), _heads(self.n(x))
        s = (q + self.u) @ k.mT
        t = (q + self.v) @ self.r(waves).view(-1, HEADS, HEAD).permute(1, 2, 0)
        t = F.pad(t, (1, 0)).view(*t.shape[:2], -1, t.shape[2])[:, :, 1:].reshape(t.shape)
        w = ((s + t) / 4).masked_fill(causal(x.shape[1], x.device), -1e9).softmax(-1)
        x = F.layer_norm(x + self.p(_flat(w @ _heads(self.o(x)))), (HIDDEN,))
        return F.layer_norm(x + self.feed(x), (HIDDEN,))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.m": "attention.self.q",
        "mid.#.n": "attention.self.k",
        "mid.#.o": "attention.self.v",
        "mid.#.p": "attention.self.o",
        "mid.#.r": "attention.self.position",
        "mid.#.u": "other | attention.self.bias",
        "mid.#.v": "other | attention.self.bias",
        **_feed("mid.#.feed"),
    },
)
class RelativeWaves(_Model):
    """Transformer-XL: projected sines are keys too, shifted."""

    def __init__(self) -> None:
        super().__init__(_Relative(), _Relative())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.start(tokens)
        angles = torch.arange(tokens.shape[1] - 1, -1, -1.0, device=tokens.device)[:, None] * 0.7 ** torch.arange(
            HIDDEN // 2, device=tokens.device
        )
        waves = torch.cat((angles.sin(), angles.cos()), -1)
        for block in self.mid:
            x = block(x, waves)
        return self.stop(x)


class _Delta(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.b, self.feed = nn.Linear(HIDDEN, HEADS), _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        q, k, v = _heads(self.n(y)), F.normalize(_heads(self.m(y)), dim=-1), _heads(self.o(y))
        beta = self.b(y).sigmoid().mT
        state = torch.zeros(x.shape[0], HEADS, HEAD, HEAD, device=x.device)
        out = torch.zeros_like(v)
        for t in range(x.shape[1]):
            old = (state * k[:, :, t, :, None]).sum(-2)
            state = state + k[:, :, t, :, None] * ((v[:, :, t] - old) * beta[:, :, t, None])[:, :, None]
            out[:, :, t] = (state * q[:, :, t, :, None]).sum(-2)
        x = x + self.p(_flat(out))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.n": "attention.linear.q",
        "mid.#.m": "attention.linear.k",
        "mid.#.o": "attention.linear.v",
        "mid.#.p": "attention.linear.o",
        "mid.#.b": "attention.linear.beta",
        **_feed("mid.#.feed"),
    },
)
class DeltaRule(_Model):
    """The delta rule, step by step."""

    def __init__(self) -> None:
        super().__init__(_Delta(), _Delta())


class _ValueBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m, self.n, self.o, self.p = _four()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.g1, self.g2, self.g3 = nn.Linear(HIDDEN, WIDE), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        y = F.rms_norm(x, (HIDDEN,))
        v = _heads(self.m(y))
        if first is not None:
            v = self.share * v + (1 - self.share) * first
        x = x + self.p(_flat(F.scaled_dot_product_attention(_heads(self.n(y)), _heads(self.o(y)), v, is_causal=True)))
        y = F.rms_norm(x, (HIDDEN,))
        gate = self.g1(y)
        return x + self.g3(torch.addcmul(torch.zeros_like(gate), F.relu(gate), self.g2(y))), v


@specimen(
    tokens(),
    {
        **_ENDS,
        "score": "head | other",
        "mid.#.n": "attention.self.q",
        "mid.#.o": "attention.self.k",
        "mid.#.m": "attention.self.v",
        "mid.#.p": "attention.self.o",
        "mid.#.g1": "ffn.dense.gate",
        "mid.#.g2": "ffn.dense.up",
        "mid.#.g3": "ffn.dense.down",
    },
)
class FirstValues(_Model):
    """Values mix with the first layer's; `addcmul`; a pooled output by learned scores."""

    def __init__(self) -> None:
        super().__init__(_ValueBlock(), _ValueBlock())
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x, first = self.start(tokens), None
        for block in self.mid:
            x, v = block(x, first)
            first = v if first is None else first
        w = self.score(torch.tanh(x)).softmax(1)
        return self.stop((w * x).sum(1))
