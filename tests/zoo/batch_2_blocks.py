"""Further styles, written when the rules for the others stood: what they get says what a stranger's model gets.

When they were traced first, 233 of their 263 weights got the role that they have, 12 a wider word for it, 2 a part of
it, 5 none and 11 a wrong one: ten behind a matrix that mixes the heads of scores, one of a long skip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import BATCH, HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, causal, specimen, tokens


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class _Attn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k1, self.k2, self.k3 = (nn.Linear(HIDDEN, INNER, bias=False) for _ in range(3))
        self.k4 = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = x if other is None else other
        return self.k4(
            _flat(F.scaled_dot_product_attention(_heads(self.k3(x)), _heads(self.k1(y)), _heads(self.k2(y))))
        )


class _Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hot, self.cold = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.cold(F.mish(self.hot(x)))


def _attn(prefix: str, kind: str = "self") -> dict[str, str]:
    parts = {"k3": "q", "k1": "k", "k2": "v", "k4": "o"}
    return {f"{prefix}.{name}": f"attention.{kind}.{part}" for name, part in parts.items()}


def _feed(prefix: str) -> dict[str, str]:
    return {f"{prefix}.hot": "ffn.dense.up", f"{prefix}.cold": "ffn.dense.down"}


_ENDS = {"start": "embedding.token", "stop": "head.lm"}


class _Model(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.start, self.stop = nn.Embedding(VOCABULARY, HIDDEN), nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.mid = nn.ModuleList(blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.start(tokens)
        for block in self.mid:
            x = block(x)
        return self.stop(x)


@specimen(tokens(), {**_ENDS, **_attn("mid.#.f"), **_feed("mid.#.g")})
class Reversible(_Model):
    """Two residual streams that feed each other."""

    def __init__(self) -> None:
        super().__init__(*(nn.ModuleDict({"f": _Attn(), "g": _Feed()}) for _ in range(2)))

    def forward(self, tokens: Tensor) -> Tensor:
        one = two = self.start(tokens)
        for block in self.mid:
            one = one + block["f"](F.layer_norm(two, (HIDDEN,)))
            two = two + block["g"](F.layer_norm(one, (HIDDEN,)))
        return self.stop((one + two) / 2)


class _GluBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(HIDDEN, 2 * INNER)
        self.single = nn.Linear(HIDDEN, INNER)
        self.back = nn.Linear(INNER, HIDDEN)
        self.twice = nn.Linear(HIDDEN, 2 * WIDE)
        self.once = nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        k, q = self.both(F.layer_norm(x, (HIDDEN,))).view(*x.shape[:2], 2, HEADS, HEAD).unbind(2)
        v = self.single(F.layer_norm(x, (HIDDEN,))).view(*x.shape[:2], HEADS, HEAD)
        scores = (F.normalize(q, dim=-1) * 10).permute(0, 2, 1, 3) @ F.normalize(k, dim=-1).permute(0, 2, 3, 1)
        x = x + self.back(_flat(torch.softmax(scores, -1) @ v.permute(0, 2, 1, 3)))
        return x + self.once(F.glu(self.twice(F.layer_norm(x, (HIDDEN,))), dim=-1))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.both": "attention.self.qk",
        "mid.#.single": "attention.self.v",
        "mid.#.back": "attention.self.o",
        "mid.#.twice": "ffn.dense.gate_up",
        "mid.#.once": "ffn.dense.down",
    },
)
class CosineGlu(_Model):
    """Query and key in one matrix, values in another; cosine scores; `F.glu`."""

    def __init__(self) -> None:
        super().__init__(_GluBlock(), _GluBlock())


class _Dispatch(nn.Module):
    COUNT, SEATS = 5, 9

    def __init__(self) -> None:
        super().__init__()
        self.attn = _Attn()
        self.ww = nn.Linear(HIDDEN, self.COUNT, bias=False)
        self.wa = nn.Parameter(torch.randn(self.COUNT, HIDDEN, 28) * 0.1)
        self.wb = nn.Parameter(torch.randn(self.COUNT, 28, HIDDEN) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(F.layer_norm(x, (HIDDEN,)))
        flat = F.layer_norm(x, (HIDDEN,)).flatten(0, 1)
        chances = self.ww(flat).softmax(-1)
        best, number = chances.max(dim=-1)
        chosen = F.one_hot(number, self.COUNT)
        seat = (chosen.cumsum(0) * chosen).sum(-1) - 1
        sent = (
            chosen[:, :, None]
            * F.one_hot(seat.clamp(0, self.SEATS - 1), self.SEATS)[:, None]
            * (seat < self.SEATS)[:, None, None]
        )
        sent = sent.to(x.dtype)
        y = torch.einsum("tec,td->ecd", sent, flat)
        y = torch.einsum("ecf,efd->ecd", torch.relu(torch.einsum("ecd,edf->ecf", y, self.wa)), self.wb)
        return x + torch.einsum("tec,ecd->td", sent * best[:, None, None], y).view_as(x)


@specimen(
    tokens(),
    {
        **_ENDS,
        **_attn("mid.#.attn"),
        "mid.#.ww": "router",
        "mid.#.wa": "ffn.expert.up",
        "mid.#.wb": "ffn.expert.down",
    },
)
class DispatchExperts(_Model):
    """Tokens are sent to seats of experts and back by two einsums with a mask."""

    def __init__(self) -> None:
        super().__init__(_Dispatch(), _Dispatch())


class _Sorted(nn.Module):
    COUNT, CHOSEN = 5, 2

    def __init__(self) -> None:
        super().__init__()
        self.attn = _Attn()
        self.pick = nn.Parameter(torch.randn(self.COUNT, HIDDEN) * 0.1)
        self.one = nn.ModuleList(nn.Linear(HIDDEN, 2 * 28, bias=False) for _ in range(self.COUNT))
        self.two = nn.ModuleList(nn.Linear(28, HIDDEN, bias=False) for _ in range(self.COUNT))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        flat = x.flatten(0, 1)
        share, number = (flat @ self.pick.T).sigmoid().topk(self.CHOSEN)
        order = number.flatten().argsort()
        counts = torch.bincount(number.flatten(), minlength=self.COUNT).tolist()
        pieces = []
        for place, piece in enumerate(flat[order // self.CHOSEN].split(counts)):
            gate, up = self.one[place](piece).chunk(2, -1)
            pieces.append(self.two[place](F.silu(gate) * up))
        y = torch.cat(pieces)
        undone = torch.empty_like(y)
        undone[order] = y
        return x + (undone.view(-1, self.CHOSEN, HIDDEN) * share[..., None]).sum(1).view_as(x)


@specimen(
    tokens(),
    {
        **_ENDS,
        **_attn("mid.#.attn"),
        "mid.#.pick": "router",
        "mid.#.one.#": "ffn.expert.gate_up",
        "mid.#.two.#": "ffn.expert.down",
    },
    meta=False,
)
class SortedExperts(_Model):
    """Tokens sorted by expert, cut by counts (`tolist`), and scattered back."""

    def __init__(self) -> None:
        super().__init__(_Sorted(), _Sorted())


class _Windows(nn.Module):
    SIDE = 4

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.aa, self.bb = nn.Linear(HIDDEN, 3 * INNER), nn.Linear(INNER, HIDDEN)
        self.cc = nn.Parameter(torch.randn((2 * self.SIDE - 1) ** 2, HEADS) * 0.1)
        places = torch.stack(torch.meshgrid(torch.arange(self.SIDE), torch.arange(self.SIDE), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]) + self.SIDE - 1
        self.register_buffer("apart", apart[0] * (2 * self.SIDE - 1) + apart[1])
        self.feed = _Feed()

    def forward(self, x: Tensor) -> Tensor:  # (batch, 8, 8, channels)
        batch, n = x.shape[0], self.SIDE
        y = torch.roll(F.layer_norm(x, (HIDDEN,)), (-self.shift, -self.shift), (1, 2))
        y = y.view(batch, 2, n, 2, n, HIDDEN).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, HIDDEN)
        q, k, v = self.aa(y).reshape(-1, n * n, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        bias = self.cc[self.apart.view(-1)].view(n * n, n * n, HEADS).permute(2, 0, 1)
        y = self.bb(_flat((q @ k.transpose(-2, -1) * HEAD**-0.5 + bias).softmax(-1) @ v))
        y = y.view(batch, 2, 2, n, n, HIDDEN).permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


class _Merge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.less = nn.Linear(4 * HIDDEN, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.less(torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1))


@specimen(
    lambda: {"picture": torch.randn(BATCH, 3, 32, 32)},
    {
        "mid.#.aa": "attention.self.qkv",
        "mid.#.bb": "attention.self.o",
        "mid.#.cc": "embedding.position | attention.self.bias",
        **_feed("mid.#.feed"),
        "merge.less": "other | embedding",  # the step from one resolution to the next
        "last": "head.classifier",
    },
)
class Windows(nn.Module):
    """Attention in shifted windows with a table of biases, and a step that halves the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, HIDDEN, 2, 2)
        self.merge = _Merge()
        self.mid = nn.ModuleList([_Windows(0), _Windows(2)])
        self.last = nn.Linear(HIDDEN, 10)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.merge(self.cut(picture).permute(0, 2, 3, 1))
        for block in self.mid:
            x = block(x)
        return self.last(x.mean((1, 2)))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.s, self.t, self.u = nn.Linear(HIDDEN, 2 * INNER), nn.Linear(HIDDEN, 2 * INNER), nn.Linear(HIDDEN, INNER)
        self.w, self.feed = nn.Linear(INNER, HIDDEN), _Feed()
        self.share = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        q, k = (f(y).view(*x.shape[:2], HEADS, 2, HEAD).permute(0, 2, 3, 1, 4) for f in (self.s, self.t))
        scores = (q @ k.transpose(-1, -2) / 4).masked_fill(causal(x.shape[1], x.device), -1e9).softmax(-1)
        x = x + self.w(_flat((scores[:, :, 0] - self.share * scores[:, :, 1]) @ _heads(self.u(y))))
        return x + self.feed(x)


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.s": "attention.self.q",
        "mid.#.t": "attention.self.k",
        "mid.#.u": "attention.self.v",
        "mid.#.w": "attention.self.o",
        **_feed("mid.#.feed"),
    },
)
class Differential(_Model):
    """The difference of two softmaxes weighs the values."""

    def __init__(self) -> None:
        super().__init__(_Twice(), _Twice())


class _Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask, self.say, self.feed = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN), _Feed()

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = x + self.say(_flat(F.scaled_dot_product_attention(_heads(self.ask(F.layer_norm(x, (HIDDEN,)))), k, v)))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


@specimen(
    tokens(),
    {
        **_ENDS,
        **_attn("first.#.a"),
        **_feed("first.#.b"),
        # Made once of the first half's states, of the same tokens.
        "keep": "attention.self.k | attention.cross.k",
        "hold": "attention.self.v | attention.cross.v",
        "mid.#.ask": "attention.self.q | attention.cross.q",
        "mid.#.say": "attention.self.o | attention.cross.o",
        **_feed("mid.#.feed"),
    },
)
class KeptKeys(_Model):
    """The second half of the layers shares one pair of keys and values."""

    def __init__(self) -> None:
        super().__init__(_Asking(), _Asking())
        self.first = nn.ModuleList(nn.ModuleDict({"a": _Attn(), "b": _Feed()}) for _ in range(2))
        self.keep, self.hold = nn.Linear(HIDDEN, INNER), nn.Linear(HIDDEN, INNER)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.start(tokens)
        for block in self.first:
            x = x + block["a"](F.layer_norm(x, (HIDDEN,)))
            x = x + block["b"](F.layer_norm(x, (HIDDEN,)))
        k, v = _heads(self.keep(x)), _heads(self.hold(x))
        for block in self.mid:
            x = block(x, k, v)
        return self.stop(x)


class _Retention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d1, self.d2, self.d3, self.d4 = (nn.Linear(HIDDEN, INNER, bias=False) for _ in range(4))
        self.d5, self.feed = nn.Linear(INNER, HIDDEN, bias=False), _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        q, k, v = _heads(self.d2(y)), _heads(self.d4(y)), _heads(self.d1(y))
        places = torch.arange(x.shape[1], device=x.device)
        fading = (0.9 ** (places[:, None] - places[None])).tril()
        y = F.group_norm(_flat((q @ k.mT * fading) @ v).transpose(1, 2), HEADS).transpose(1, 2)
        x = x + self.d5(F.silu(self.d3(F.layer_norm(x, (HIDDEN,)))) * y)
        return x + self.feed(x)


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.d2": "attention.linear.q",
        "mid.#.d4": "attention.linear.k",
        "mid.#.d1": "attention.linear.v",
        "mid.#.d3": "attention.linear.gate",
        "mid.#.d5": "attention.linear.o",
        **_feed("mid.#.feed"),
    },
)
class Retention(_Model):
    """Scores that fade with distance in place of a softmax, and an output gate."""

    def __init__(self) -> None:
        super().__init__(_Retention(), _Retention())


class _Flamingo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look, self.then, self.own, self.feed = _Attn(), _Feed(), _Attn(), _Feed()
        self.open_1, self.open_2 = nn.Parameter(torch.tensor([0.4])), nn.Parameter(torch.tensor([0.4]))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.open_1.tanh() * self.look(F.layer_norm(x, (HIDDEN,)), seen)
        x = x + self.open_2.tanh() * self.then(F.layer_norm(x, (HIDDEN,)))
        x = x + self.own(F.layer_norm(x, (HIDDEN,)))
        return x + self.feed(F.layer_norm(x, (HIDDEN,)))


@specimen(
    lambda: {"tokens": torch.randint(0, VOCABULARY, (BATCH, LENGTH)), "media": torch.randn(BATCH, 17, 36)},
    {
        **_ENDS,
        "bring": "embedding",
        **_attn("mid.#.look", "cross"),
        **_feed("mid.#.then"),
        **_attn("mid.#.own"),
        **_feed("mid.#.feed"),
    },
)
class Watching(_Model):
    """A language model that looks at given features through gated cross-attention."""

    def __init__(self) -> None:
        super().__init__(_Flamingo(), _Flamingo())
        self.bring = nn.Linear(36, HIDDEN)

    def forward(self, tokens: Tensor, media: Tensor) -> Tensor:
        x, seen = self.start(tokens), self.bring(media)
        for block in self.mid:
            x = block(x, seen)
        return self.stop(x)


class _Macaron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.attn = _Feed(), _Feed(), _Attn()
        self.p1, self.p2 = nn.Conv1d(HIDDEN, 2 * HIDDEN, 1), nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.deep = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2, groups=HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.one(F.layer_norm(x, (HIDDEN,)))
        x = x + self.attn(F.layer_norm(x, (HIDDEN,)))
        y = F.glu(self.p1(F.layer_norm(x, (HIDDEN,)).transpose(1, 2)), dim=1)
        x = x + self.p2(F.silu(self.deep(y))).transpose(1, 2)
        return F.layer_norm(x + 0.5 * self.two(F.layer_norm(x, (HIDDEN,))), (HIDDEN,))


@specimen(
    lambda: {"sound": torch.randn(BATCH, 21, 40)},
    {
        "take": "embedding",
        **_feed("mid.#.one"),
        **_feed("mid.#.two"),
        **_attn("mid.#.attn"),
        "mid.#.p1": "mixer.in",
        "mid.#.p2": "mixer.out",
        "give": "head",
    },
)
class Macaron(nn.Module):
    """Half a feed-forward, attention, a gated convolution, half a feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.take, self.give = nn.Linear(40, HIDDEN), nn.Linear(HIDDEN, 30)
        self.mid = nn.Sequential(_Macaron(), _Macaron())

    def forward(self, sound: Tensor) -> Tensor:
        return self.give(self.mid(self.take(sound))).log_softmax(-1)


class _Adapted(nn.Module):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.base = nn.Linear(columns, rows, bias=False)
        self.thin, self.thick = nn.Linear(columns, 6, bias=False), nn.Linear(6, rows, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * self.thick(self.thin(x))


class _AdaptedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g1, self.g2, self.g3 = _Adapted(INNER, HIDDEN), nn.Linear(HIDDEN, INNER), _Adapted(INNER, HIDDEN)
        self.g4, self.feed = nn.Linear(INNER, HIDDEN), _Feed()
        self.neck = nn.Sequential(nn.Linear(HIDDEN, 10), nn.ReLU(), nn.Linear(10, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (HIDDEN,))
        x = x + self.g4(
            _flat(F.scaled_dot_product_attention(_heads(self.g1(y)), _heads(self.g2(y)), _heads(self.g3(y))))
        )
        y = self.feed(F.layer_norm(x, (HIDDEN,)))
        return x + y + self.neck(y)


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.g1.base": "attention.self.q",
        "mid.#.g2": "attention.self.k",
        "mid.#.g3.base": "attention.self.v",
        "mid.#.g4": "attention.self.o",
        # What an adapter adds has the role of what it is added to, as a low-rank pair, or none.
        "mid.#.g1.thin": "other | attention.self.q_a",
        "mid.#.g1.thick": "other | attention.self.q_b",
        "mid.#.g3.thin": "other | attention.self",
        "mid.#.g3.thick": "other | attention.self",
        **_feed("mid.#.feed"),
        "mid.#.neck.0": "other | ffn.dense.up",
        "mid.#.neck.2": "other | ffn.dense.down",
    },
)
class Adapted(_Model):
    """Adapters are in it already: low-rank pairs beside two matrices and a bottleneck behind the feed-forward."""

    def __init__(self) -> None:
        super().__init__(_AdaptedBlock(), _AdaptedBlock())


class _Scaled(nn.Module):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.direction, self.length = nn.Parameter(torch.randn(rows, columns)), nn.Parameter(torch.ones(rows))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.direction, dim=-1) * self.length[:, None])


class _ScaledBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r1, self.r2, self.r3 = (_Scaled(INNER, HIDDEN) for _ in range(3))
        self.r4, self.r5, self.r6, self.r7 = (
            _Scaled(HIDDEN, INNER), _Scaled(WIDE, HIDDEN), _Scaled(WIDE, HIDDEN), _Scaled(HIDDEN, WIDE)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.normalize(_heads(self.r2(x)), dim=-1), F.normalize(_heads(self.r1(x)), dim=-1)
        y = F.normalize(self.r4(_flat(F.scaled_dot_product_attention(q, k, _heads(self.r3(x)), scale=4.0))), dim=-1)
        x = F.normalize(x + 0.1 * (y - x), dim=-1)
        y = F.normalize(self.r7(self.r5(x) * F.silu(self.r6(x))), dim=-1)
        return F.normalize(x + 0.1 * (y - x), dim=-1)


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.r2.direction": "attention.self.q",
        "mid.#.r1.direction": "attention.self.k",
        "mid.#.r3.direction": "attention.self.v",
        "mid.#.r4.direction": "attention.self.o",
        "mid.#.r5.direction": "ffn.dense.up",
        "mid.#.r6.direction": "ffn.dense.gate",
        "mid.#.r7.direction": "ffn.dense.down",
    },
)
class OnTheSphere(_Model):
    """Every matrix is made of a direction and a length, and the stream moves on a sphere."""

    def __init__(self) -> None:
        super().__init__(_ScaledBlock(), _ScaledBlock())


class _Talking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qq, self.vv, self.oo = nn.Linear(HIDDEN, 2 * INNER), nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)
        self.pre, self.post, self.feed = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS), _Feed()

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qq(x).chunk(2, -1)
        scores = self.pre((_heads(q) @ _heads(k).mT / 4).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = self.post(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.layer_norm(x + self.oo(_flat(weights @ _heads(self.vv(x)))), (HIDDEN,))
        return F.layer_norm(x + self.feed(x), (HIDDEN,))


@specimen(
    tokens(),
    {
        **_ENDS,
        "mid.#.qq": "attention.self.qk",
        "mid.#.vv": "attention.self.v",
        "mid.#.oo": "attention.self.o",
        "mid.#.pre": "other | attention.self.bias",  # mixes heads, before and after the softmax
        "mid.#.post": "other | attention.self.bias",
        **_feed("mid.#.feed"),
    },
)
class TalkingHeads(_Model):
    """Heads are mixed by a small matrix on both sides of the softmax."""

    def __init__(self) -> None:
        super().__init__(_Talking(), _Talking())


@specimen(
    lambda: {
        "tokens": torch.randint(0, VOCABULARY, (BATCH, LENGTH)),
        "there": torch.arange(LENGTH).expand(BATCH, -1) < torch.tensor([[LENGTH], [LENGTH - 3]]),
    },
    {**_ENDS, **_attn("mid.#.f"), **_feed("mid.#.g"), "join": "other", "rank": "head.classifier"},
    meta=False,
)
class Packed(_Model):
    """Rows of a batch laid end to end without their padding; a long skip joins the first block to the last."""

    def __init__(self) -> None:
        super().__init__(*(nn.ModuleDict({"f": _Attn(), "g": _Feed()}) for _ in range(2)))
        self.join, self.rank = nn.Linear(2 * HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, tokens: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        x = self.start(tokens)[there][None]
        kept = []
        for block in self.mid:
            x = x + block["f"](F.layer_norm(x, (HIDDEN,)))
            x = x + block["g"](F.layer_norm(x, (HIDDEN,)))
            kept.append(x)
        x = self.join(torch.cat((kept[0], x), -1))[0]
        ends = there.sum(1).cumsum(0) - 1
        return self.stop(x), self.rank(x[ends])
