"""What mixes tokens without a softmax, and what mixes residual streams."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import HEAD, HEADS, HIDDEN, INNER, VOCABULARY, WIDE, causal, specimen, tokens


class _Narrow(nn.Module):
    """A plain feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.j, self.k = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.k(F.gelu(self.j(x)))


class _KernelBlock(nn.Module):
    def __init__(self, *, cumulative: bool) -> None:
        super().__init__()
        self.cumulative = cumulative
        self.up, self.gate, self.down = (nn.Linear(HIDDEN, INNER, bias=False) for _ in range(3))
        self.mix = nn.Linear(INNER, HIDDEN, bias=False)
        self.rest = _Narrow()
        self.n1, self.n2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.n1(x)
        q, k, v = (f(y).unflatten(-1, (HEADS, HEAD)) for f in (self.gate, self.down, self.up))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        if self.cumulative:
            state = (k[..., :, None] * v[..., None, :]).cumsum(1)
            y = (q[..., None, :] @ state)[..., 0, :]
            y = y / (q * k.cumsum(1)).sum(-1, keepdim=True)
        else:
            state = torch.einsum("bthk,bthv->bhkv", k, v)
            y = torch.einsum("bthk,bhkv->bthv", q, state)
            y = y / torch.einsum("bthk,bhk->bth", q, k.sum(1))[..., None]
        x = x + self.mix(y.flatten(2))
        return x + self.rest(self.n2(x))


@specimen(
    tokens(),
    {
        "aa": "embedding.token",
        "bb.#.gate": "attention.linear.q",
        "bb.#.down": "attention.linear.k",
        "bb.#.up": "attention.linear.v",
        "bb.#.mix": "attention.linear.o",
        "bb.#.rest.j": "ffn.dense.up",
        "bb.#.rest.k": "ffn.dense.down",
        "cc": "head.lm",
    },
)
class LinearAttention(nn.Module):
    """The kernel elu + 1 in place of a softmax; over all tokens in one layer, cumulative in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.aa = nn.Embedding(VOCABULARY, HIDDEN)
        self.bb = nn.ModuleList([_KernelBlock(cumulative=False), _KernelBlock(cumulative=True)])
        self.cc = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.aa(tokens)
        for block in self.bb:
            x = block(x)
        return self.cc(x)


class _ScanBlock(nn.Module):
    STATE, RANK = 6, 4

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, 2 * INNER, bias=False)
        self.kernel = nn.Conv1d(INNER, INNER, 4, groups=INNER, padding=3)
        self.k_proj = nn.Linear(INNER, self.RANK + 2 * self.STATE, bias=False)
        self.v_proj = nn.Linear(self.RANK, INNER)
        self.logs = nn.Parameter(torch.log(torch.arange(1.0, self.STATE + 1).repeat(INNER, 1)))
        self.skip = nn.Parameter(torch.ones(INNER))
        self.o_proj = nn.Linear(INNER, HIDDEN, bias=False)
        self.norm = nn.RMSNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        y, z = self.q_proj(self.norm(x)).chunk(2, dim=-1)
        y = F.silu(self.kernel(y.transpose(1, 2))[..., :length].transpose(1, 2))
        step, into, out_of = self.k_proj(y).split([self.RANK, self.STATE, self.STATE], dim=-1)
        step = F.softplus(self.v_proj(step))
        decay = torch.exp(step[..., None] * -self.logs.exp())
        added = step[..., None] * into[:, :, None, :] * y[..., None]
        state, rows = torch.zeros_like(added[:, 0]), []
        for place in range(length):
            state = decay[:, place] * state + added[:, place]
            rows.append((state * out_of[:, place, None, :]).sum(-1))
        y = torch.stack(rows, dim=1) + self.skip * y
        return x + self.o_proj(y * F.silu(z))


@specimen(
    tokens(),
    {
        "table": "embedding.token",
        "attention.#.q_proj": "mixer.in",
        "attention.#.k_proj": "mixer.x",
        "attention.#.v_proj": "mixer.dt",
        "attention.#.logs": "other",
        "attention.#.o_proj": "mixer.out",
    },
)
class Scan(nn.Module):
    """A selective state space, step by step, called like attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, HIDDEN)
        self.attention = nn.ModuleList(_ScanBlock() for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        for block in self.attention:
            x = block(x)
        return torch.einsum("btd,vd->btv", x, self.table.weight)


class _ShortBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * INNER, bias=False)
        self.conv = nn.Conv1d(INNER, INNER, 3, groups=INNER, padding=2, bias=False)
        self.proj = nn.Linear(INNER, HIDDEN, bias=False)
        self.rest = _Narrow()

    def forward(self, x: Tensor) -> Tensor:
        one, two, y = self.qkv(F.layer_norm(x, (HIDDEN,))).transpose(1, 2).chunk(3, dim=1)
        y = two * self.conv(one * y)[..., : x.shape[1]]
        x = x + self.proj(y.transpose(1, 2))
        return x + self.rest(F.layer_norm(x, (HIDDEN,)))


@specimen(
    tokens(),
    {
        "inp": "embedding.token",
        "deep.#.qkv": "mixer.in",
        "deep.#.proj": "mixer.out",
        "deep.#.rest.j": "ffn.dense.up",
        "deep.#.rest.k": "ffn.dense.down",
        "outp": "head.lm",
    },
)
class ShortConvolution(nn.Module):
    """Gates around a short convolution, from one matrix called qkv."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Embedding(VOCABULARY, HIDDEN)
        self.deep = nn.Sequential(_ShortBlock(), _ShortBlock())
        self.outp = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.outp(self.deep(self.inp(tokens)))


@specimen(
    tokens(),
    {
        "q": "embedding.token",
        "k.weight_ih_l#": "mixer",
        "k.weight_hh_l#": "mixer",
        "v": "head.lm",
    },
)
class Recurrent(nn.Module):
    """An LSTM of two layers, with no block that a transformer has."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Embedding(VOCABULARY, HIDDEN)
        self.k = nn.LSTM(HIDDEN, INNER, num_layers=2, batch_first=True)
        self.v = nn.Linear(INNER, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.v(self.k(self.q(tokens))[0])


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ab, self.ac, self.ad = (nn.Linear(HIDDEN, INNER, bias=False) for _ in range(3))
        self.ae = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for f in (self.ad, self.ab, self.ac))
        scores = (q @ k.transpose(-1, -2) / 4).masked_fill(causal(x.shape[1], x.device), -1e9)
        return self.ae((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


_PLAIN = {
    "#.ad": "attention.self.q",
    "#.ab": "attention.self.k",
    "#.ac": "attention.self.v",
    "#.ae": "attention.self.o",
    "#.j": "ffn.dense.up",
    "#.k": "ffn.dense.down",
}


class _Streams(nn.Module):
    """Mixes several residual streams into one for a block, and its output back into all of them."""

    COUNT = 3

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.router = nn.Linear(HIDDEN * self.COUNT, self.COUNT * (self.COUNT + 2), bias=False)
        self.block = block

    def forward(self, streams: Tensor) -> Tensor:  # (batch, length, COUNT, HIDDEN)
        n = self.COUNT
        shares = torch.tanh(self.router(F.rms_norm(streams.flatten(2), (HIDDEN * n,))))
        into, back, mix = shares.split([n, n, n * n], dim=-1)
        one = (streams * into[..., None]).sum(2)
        y = self.block(F.layer_norm(one, (HIDDEN,)))
        mixed = mix.unflatten(-1, (n, n)) @ streams
        return mixed + back[..., None] * y[:, :, None]


@specimen(
    tokens(),
    {
        "u": "embedding.token",
        "v.#.router": "other",
        **{f"v.#.block.{name.removeprefix('#.')}": role for name, role in _PLAIN.items()},
        "w": "head.lm",
    },
)
class Streams(nn.Module):
    """Three residual streams, mixed by weights that they make themselves (hyper-connections)."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Embedding(VOCABULARY, HIDDEN)
        self.v = nn.ModuleList(_Streams(block) for _ in range(2) for block in (_Attention(), _Narrow()))
        self.w = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.u(tokens).unsqueeze(2).repeat(1, 1, _Streams.COUNT, 1)
        for block in self.v:
            x = block(x)
        return self.w(x.mean(2))


class _Highway(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, HIDDEN)
        self.inner = block

    def forward(self, x: Tensor) -> Tensor:
        carry = torch.sigmoid(self.gate_proj(x))
        return carry * self.inner(x) + (1 - carry) * x


@specimen(
    tokens(),
    {
        "one": "embedding.token",
        "two.#.gate_proj": "other",
        **{f"two.#.inner.{name.removeprefix('#.')}": role for name, role in _PLAIN.items()},
        "three": "head.lm",
    },
)
class Highway(nn.Module):
    """A gate of its own chooses between a block's output and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Embedding(VOCABULARY, HIDDEN)
        self.two = nn.Sequential(*(_Highway(block) for _ in range(2) for block in (_Attention(), _Narrow())))
        self.three = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.three(self.two(self.one(tokens)))
