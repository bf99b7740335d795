"""Attention in the many ways in which people write it. Names of modules tell nothing here, or something wrong."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, causal, specimen, tokens


class _EinsumBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(HEADS, HIDDEN, HEAD) * 0.1)
        self.b = nn.Parameter(torch.randn(HEADS, HIDDEN, HEAD) * 0.1)
        self.c = nn.Parameter(torch.randn(HEADS, HIDDEN, HEAD) * 0.1)
        self.d = nn.Parameter(torch.randn(HEADS, HEAD, HIDDEN) * 0.1)
        self.e = nn.Parameter(torch.randn(HIDDEN, WIDE) * 0.1)
        self.f = nn.Parameter(torch.randn(WIDE, HIDDEN) * 0.1)
        self.n1, self.n2 = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.n1(x)
        one = torch.einsum("btd,hdk->bhtk", y, self.c)
        two = torch.einsum("btd,hdk->bhtk", y, self.a)
        three = torch.einsum("btd,hdk->bhtk", y, self.b)
        scores = torch.einsum("bhtk,bhsk->bhts", one, two) / math.sqrt(HEAD)
        scores = scores.masked_fill(causal(x.shape[1], x.device), -torch.inf)
        x = x + torch.einsum("bhts,bhsk,hkd->btd", scores.softmax(-1), three, self.d)
        return x + torch.einsum("btf,fd->btd", torch.einsum("btd,df->btf", self.n2(x), self.e).relu() ** 2, self.f)


@specimen(
    tokens("x"),
    {
        "t": "embedding.token",
        "l.#.c": "attention.self.q",
        "l.#.a": "attention.self.k",
        "l.#.b": "attention.self.v",
        "l.#.d": "attention.self.o",
        "l.#.e": "ffn.dense.up",
        "l.#.f": "ffn.dense.down",
        "z": "head.lm",
    },
)
class EinsumHeads(nn.Module):
    """One einsum for everything, heads kept apart in 3-D parameters, ReLU²."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Embedding(VOCABULARY, HIDDEN)
        self.l = nn.ModuleList(_EinsumBlock() for _ in range(3))
        self.z = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.t(x)
        for block in self.l:
            x = block(x)
        return self.z(x)


class _KeysFirstBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # Called after what they are not.
        self.key = nn.Linear(HIDDEN, INNER)
        self.value = nn.Linear(HIDDEN, INNER)
        self.query = nn.Linear(HIDDEN, INNER)
        self.gate = nn.Linear(INNER, HIDDEN)
        self.query_proj = nn.Linear(HIDDEN, WIDE)
        self.value_proj = nn.Linear(WIDE, HIDDEN)
        self.after, self.before = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        asked = self.key(x).view(batch, length, HEADS, HEAD)
        answered = self.value(x).view(batch, length, HEADS, HEAD)
        given = self.query(x).view(batch, length, HEADS, HEAD)
        scores = torch.einsum("bshd,bthd->bhst", answered, asked) * HEAD**-0.5  # keys in front
        weights = F.softmax(scores, dim=2)
        x = self.after(x + self.gate(torch.einsum("bshd,bhst->bthd", given, weights).flatten(2)))
        return self.before(x + self.value_proj(F.gelu(self.query_proj(x))))


@specimen(
    tokens(),
    {
        "head": "embedding.token",
        "router.#.key": "attention.self.q",
        "router.#.value": "attention.self.k",
        "router.#.query": "attention.self.v",
        "router.#.gate": "attention.self.o",
        "router.#.query_proj": "ffn.dense.up",
        "router.#.value_proj": "ffn.dense.down",
        "embed_tokens": "head.lm",
    },
)
class KeysFirst(nn.Module):
    """Keys are the first operand of the scores and the softmax runs over the last but one axis; post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Embedding(VOCABULARY, HIDDEN)
        self.router = nn.ModuleList(_KeysFirstBlock() for _ in range(2))
        self.embed_tokens = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.head(tokens)
        for block in self.router:
            x = block(x)
        return {"scores": self.embed_tokens(x)}


class _MatmulBlock(nn.Module):
    """Keys in front by `matmul`, then transposed, before the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.ParameterList(
            torch.randn(rows, columns) * 0.1
            for rows, columns in [(HIDDEN, INNER)] * 3 + [(INNER, HIDDEN), (HIDDEN, WIDE), (WIDE, HIDDEN)]
        )
        self.g = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (HEADS, HEAD)).movedim(2, 1)

        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.g
        scores = torch.matmul(heads(y @ self.w[0]), heads(y @ self.w[2]).mT).mT / HEAD**0.5 + bias
        scores = (scores - scores.amax(-1, keepdim=True)).exp()
        scores = scores / scores.sum(-1, keepdim=True)
        x = x + (scores @ heads(y @ self.w[1])).movedim(1, 2).flatten(2) @ self.w[3]
        return x + torch.relu(x @ self.w[4]) @ self.w[5]


@specimen(
    tokens("idx"),
    {
        "vec": "embedding.token",
        "step.w.0": "attention.self.k",
        "step.w.1": "attention.self.v",
        "step.w.2": "attention.self.q",
        "step.w.3": "attention.self.o",
        "step.w.4": "ffn.dense.up",
        "step.w.5": "ffn.dense.down",
    },
)
class ManualSoftmax(nn.Module):
    """Softmax by exp and sum, ALiBi, one block run three times, and the embedding used again as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.vec = nn.Embedding(VOCABULARY, HIDDEN)
        self.step = _MatmulBlock()
        slopes = 2.0 ** -torch.arange(1.0, HEADS + 1)
        self.register_buffer("slopes", slopes.view(HEADS, 1, 1), persistent=False)

    def forward(self, idx: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(idx.shape[1], device=idx.device)
        bias = self.slopes * (places[None, :] - places[:, None])
        bias = bias.masked_fill(causal(idx.shape[1], idx.device), float("-inf"))
        x = self.vec(idx)
        for _ in range(3):
            x = self.step(x, bias)
        return F.linear(x, self.vec.weight), x


class _ColumnsBlock(nn.Module):
    GROUPS = 2

    def __init__(self) -> None:
        super().__init__()
        narrow = self.GROUPS * HEAD
        self.w_down = nn.Parameter(torch.randn(HIDDEN, INNER) * 0.1)
        self.w_gate = nn.Parameter(torch.randn(HIDDEN, narrow) * 0.1)
        self.w_up = nn.Parameter(torch.randn(HIDDEN, narrow) * 0.1)
        self.w_in = nn.Parameter(torch.randn(INNER, HIDDEN) * 0.1)
        self.w_q = nn.Parameter(torch.randn(HIDDEN, WIDE) * 0.1)
        self.w_k = nn.Parameter(torch.randn(HIDDEN, WIDE) * 0.1)
        self.w_v = nn.Parameter(torch.randn(WIDE, HIDDEN) * 0.1)
        self.scale_1 = nn.Parameter(torch.ones(HIDDEN))
        self.scale_2 = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def turned(y: Tensor) -> Tensor:
            pairs = torch.view_as_complex(y.float().reshape(*y.shape[:-1], -1, 2))
            return torch.view_as_real(pairs * turn[:, None]).flatten(3).type_as(y)

        y = F.rms_norm(x, (HIDDEN,), self.scale_1)
        q = turned((y @ self.w_down).view(batch, length, HEADS, HEAD)).transpose(1, 2)
        k = turned((y @ self.w_gate).view(batch, length, self.GROUPS, HEAD)).transpose(1, 2)
        v = (y @ self.w_up).view(batch, length, self.GROUPS, HEAD).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + y.transpose(1, 2).reshape(batch, length, -1) @ self.w_in
        y = F.rms_norm(x, (HIDDEN,), self.scale_2)
        return x + (F.silu(y @ self.w_q) * (y @ self.w_k)) @ self.w_v


@specimen(
    tokens(),
    {
        "mlp": "embedding.token",
        "experts.#.w_down": "attention.self.q",
        "experts.#.w_gate": "attention.self.k",
        "experts.#.w_up": "attention.self.v",
        "experts.#.w_in": "attention.self.o",
        "experts.#.w_q": "ffn.dense.gate",
        "experts.#.w_k": "ffn.dense.up",
        "experts.#.w_v": "ffn.dense.down",
        "attn": "head.lm",
    },
)
class Columns(nn.Module):
    """`x @ w` with parameters stored (in, out); grouped queries, complex rotations, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Embedding(VOCABULARY, HIDDEN)
        self.experts = nn.ModuleList(_ColumnsBlock() for _ in range(3))
        self.attn = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        angles = 1e4 ** (-torch.arange(0, HEAD, 2, device=tokens.device) / HEAD)
        angles = torch.outer(torch.arange(tokens.shape[1], device=tokens.device), angles)
        turn = torch.polar(torch.ones_like(angles), angles)
        x = self.mlp(tokens)
        for block in self.experts:
            x = block(x, turn)
        return self.attn(x)


class _ParallelBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(HIDDEN, 3 * INNER), "fc2": nn.Linear(INNER, HIDDEN)})
        self.attn = nn.ModuleDict({"qkv": nn.Linear(HIDDEN, 2 * WIDE), "proj": nn.Linear(WIDE, HIDDEN)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (z.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for z in self.mlp["fc1"](y).chunk(3, dim=-1))
        one = F.scaled_dot_product_attention(q, k, v, attn_mask=~causal(x.shape[1], x.device))
        value, gate = self.attn["qkv"](y).chunk(2, dim=-1)
        return x + self.mlp["fc2"](one.transpose(1, 2).flatten(2)) + self.attn["proj"](value * F.gelu(gate))


@specimen(
    tokens("ids"),
    {
        "e": "embedding.token",
        "p": "embedding.position",
        "b.#.mlp.fc1": "attention.self.qkv",
        "b.#.mlp.fc2": "attention.self.o",
        "b.#.attn.qkv": "ffn.dense.gate_up",
        "b.#.attn.proj": "ffn.dense.down",
        "h": "head.lm",
    },
)
class ParallelChunks(nn.Module):
    """Attention and GEGLU side by side after one norm, both packed and cut by `chunk`; learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.p = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(64, HIDDEN)
        self.b = nn.Sequential(*(_ParallelBlock() for _ in range(2)))
        self.h = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.e(ids) + self.p(torch.arange(ids.shape[1], device=ids.device))
        return self.h(self.b(x))


class _InterleavedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(HIDDEN, INNER * 3)
        self.right = nn.Linear(INNER, HIDDEN)
        self.top = nn.Linear(HIDDEN, 2 * WIDE)
        self.bottom = nn.Linear(WIDE, HIDDEN)
        self.ln_a, self.ln_b = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        packed = self.left(self.ln_a(x)).view(batch, length, HEADS, 3 * HEAD).permute(0, 2, 1, 3)
        k, q, v = packed[..., :HEAD], packed[..., HEAD : 2 * HEAD], packed[..., 2 * HEAD :]
        weights = torch.baddbmm(
            torch.zeros(1, length, length, device=x.device),
            q.reshape(batch * HEADS, length, HEAD),
            k.reshape(batch * HEADS, length, HEAD).transpose(1, 2),
            alpha=HEAD**-0.5,
        )
        weights = torch.where(mask, torch.finfo(x.dtype).min, weights).softmax(dim=-1)
        y = torch.bmm(weights, v.reshape(batch * HEADS, length, HEAD))
        y = y.view(batch, HEADS, length, HEAD).permute(0, 2, 1, 3).contiguous().view(batch, length, INNER)
        x = self.right(y) + x
        y = self.top(self.ln_b(x))
        gate, up = y[..., ::2].clamp(max=7.0), y[..., 1::2].clamp(-7.0, 7.0)
        return self.bottom((up + 1) * gate * torch.sigmoid(1.7 * gate)) + x


@specimen(
    tokens(),
    {
        "word": "embedding.token",
        "rows.#.left": "attention.self.qkv",
        "rows.#.right": "attention.self.o",
        "rows.#.top": "ffn.dense.gate_up",
        "rows.#.bottom": "ffn.dense.down",
        "last": "head.lm",
    },
)
class Interleaved(nn.Module):
    """q, k and v take turns head by head, gate and up element by element."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(VOCABULARY, HIDDEN)
        self.rows = nn.ModuleList(_InterleavedBlock() for _ in range(2))
        self.last = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = causal(tokens.shape[1], tokens.device)
        x = self.word(tokens)
        for row in self.rows:
            x = row(x, mask)
        return self.last(x)


class _OneMatrixBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(HIDDEN, 3 * INNER + WIDE)
        self.linear2 = nn.Linear(INNER + WIDE, HIDDEN)
        self.pre_norm = nn.LayerNorm(HIDDEN, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv, wide = torch.split(self.linear1(self.pre_norm(x)), [3 * INNER, WIDE], dim=-1)
        q, k, v = qkv.view(batch, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, INNER)
        return x + self.linear2(torch.cat((y, F.gelu(wide, approximate="tanh")), dim=2))


@specimen(
    tokens(),
    {
        "txt_in": "embedding.token",
        "single_blocks.#.linear1": "attention.self.qkv + ffn.dense.up",
        "single_blocks.#.linear2": "attention.self.o + ffn.dense.down",
        "final_layer": "head.lm",
    },
)
class OneMatrix(nn.Module):
    """One matrix into attention and feed-forward, one out of both: no role of the vocabulary is the whole truth."""

    def __init__(self) -> None:
        super().__init__()
        self.txt_in = nn.Embedding(VOCABULARY, HIDDEN)
        self.single_blocks = nn.ModuleList(_OneMatrixBlock() for _ in range(3))
        self.final_layer = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.txt_in(tokens)
        for block in self.single_blocks:
            x = block(x)
        return self.final_layer(x)


class _LowRankBlock(nn.Module):
    RANK, ROTARY = 20, 8

    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Linear(HIDDEN, 24, bias=False)
        self.up_norm = nn.RMSNorm(24)
        self.gate_proj = nn.Linear(24, HEADS * (HEAD + self.ROTARY), bias=False)
        self.down_proj = nn.Linear(HIDDEN, self.RANK + self.ROTARY, bias=False)
        self.down_norm = nn.RMSNorm(self.RANK)
        self.expand = nn.Linear(self.RANK, HEADS * 2 * HEAD, bias=False)
        self.collapse = nn.Linear(INNER, HIDDEN, bias=False)
        self.k_proj = nn.Linear(HIDDEN, WIDE, bias=False)
        self.q_proj = nn.Linear(HIDDEN, WIDE, bias=False)
        self.v_proj = nn.Linear(WIDE, HIDDEN, bias=False)
        self.norm_1, self.norm_2 = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def turned(y: Tensor) -> Tensor:
            one, two = y.chunk(2, -1)
            return y * cos + torch.cat((-two, one), -1) * sin

        y = self.norm_1(x)
        q = self.gate_proj(self.up_norm(self.up_proj(y))).view(batch, length, HEADS, -1).transpose(1, 2)
        still, moved = q.split([HEAD, self.ROTARY], -1)
        latent, key = self.down_proj(y).split([self.RANK, self.ROTARY], -1)
        key = turned(key.view(batch, 1, length, self.ROTARY)).expand(-1, HEADS, -1, -1)
        pair = self.expand(self.down_norm(latent)).view(batch, length, HEADS, 2 * HEAD).transpose(1, 2)
        k, v = pair.split([HEAD, HEAD], -1)
        q, k = torch.cat((still, turned(moved)), -1), torch.cat((k, key), -1)
        scores = q @ k.transpose(2, 3) * (HEAD + self.ROTARY) ** -0.5
        scores = scores + torch.full((length, length), -1e9, device=x.device).triu(1)
        y = F.softmax(scores, -1, dtype=torch.float32).to(x.dtype) @ v
        x = x + self.collapse(y.transpose(1, 2).reshape(batch, length, -1))
        y = self.norm_2(x)
        return x + self.v_proj(self.k_proj(y) * F.silu(self.q_proj(y)))


@specimen(
    tokens(),
    {
        "lut": "embedding.token",
        "tower.#.up_proj": "attention.self.q_a",
        "tower.#.gate_proj": "attention.self.q_b",
        "tower.#.down_proj": "attention.self.kv_a",
        "tower.#.expand": "attention.self.kv_b",
        "tower.#.collapse": "attention.self.o",
        "tower.#.q_proj": "ffn.dense.gate",
        "tower.#.k_proj": "ffn.dense.up",
        "tower.#.v_proj": "ffn.dense.down",
        "out": "head.lm",
    },
)
class LowRank(nn.Module):
    """Queries and keys-and-values through narrow latents, a rotated part beside; called like a feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.lut = nn.Embedding(VOCABULARY, HIDDEN)
        self.tower = nn.ModuleList(_LowRankBlock() for _ in range(2))
        self.out = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        angles = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * 0.1 ** torch.arange(
            4, device=tokens.device
        )
        angles = torch.cat((angles, angles), -1)
        x = self.lut(tokens)
        for block in self.tower:
            x = block(x, angles.cos(), angles.sin())
        return self.out(x)


class _GatedBlock(nn.Module):
    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.w1 = nn.Linear(HIDDEN, INNER * (2 if packed else 1))
        self.w2 = nn.Linear(HIDDEN, INNER)
        self.w3 = nn.Linear(HIDDEN, INNER)
        self.down_proj = nn.Linear(INNER, HIDDEN)
        if not packed:
            self.gate_proj = nn.Linear(HIDDEN, INNER)
        self.k = nn.Linear(HIDDEN, WIDE)
        self.v = nn.Linear(WIDE, HIDDEN)
        self.n, self.m = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], HEADS, -1)
        y = self.n(x)
        q = self.w1(y).view(shape)
        if self.packed:
            q, gate = q.chunk(2, dim=-1)
            gate = gate.flatten(2)
        else:
            gate = self.gate_proj(y)
        q, k, v = (z.transpose(1, 2) for z in (q, self.w2(y).view(shape), self.w3(y).view(shape)))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.down_proj(z * torch.sigmoid(gate))
        return x + self.v(torch.tanh(self.k(self.m(x))))


@specimen(
    tokens(),
    {
        "s": "embedding.token",
        "mlp.0.w1": "attention.self.q",
        "mlp.1.w1": "attention.self.q_gate",
        "mlp.#.w2": "attention.self.k",
        "mlp.#.w3": "attention.self.v",
        "mlp.0.gate_proj": "attention.self.gate",
        "mlp.#.down_proj": "attention.self.o",
        "mlp.#.k": "ffn.dense.up",
        "mlp.#.v": "ffn.dense.down",
        "u": "head.lm",
    },
)
class GatedOutput(nn.Module):
    """The attention's output has a gate: a matrix of its own in one layer, half of the query's in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Embedding(VOCABULARY, HIDDEN)
        self.mlp = nn.ModuleList([_GatedBlock(packed=False), _GatedBlock(packed=True)])
        self.u = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.s(tokens)
        for block in self.mlp:
            x = block(x)
        return self.u(x)


class _InPlaceBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.ModuleList(nn.Linear(HIDDEN, INNER, bias=False) for _ in range(4))
        self.back = nn.ModuleList([nn.Linear(INNER, HIDDEN, bias=False), nn.Linear(WIDE, HIDDEN, bias=False)])
        self.wide = nn.Linear(HIDDEN, WIDE, bias=False)
        self.thin = nn.Linear(HIDDEN, WIDE, bias=False)
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        one, two, three = (self.proj[i](y) for i in (3, 0, 1))
        out = torch.zeros_like(one)
        for head in range(HEADS):
            span = slice(head * HEAD, (head + 1) * HEAD)
            scores = one[:, :, span] @ two[:, :, span].transpose(1, 2)
            scores.mul_(HEAD**-0.5).masked_fill_(causal(x.shape[1], x.device), -1e9)
            out[:, :, span] = torch.softmax(scores, dim=-1) @ three[:, :, span]
        x += self.back[0](out)
        y = self.norm(x)
        z = self.wide(y)
        z *= self.thin(y)  # bilinear: no activation at all
        x += self.back[1](z)
        return x


@specimen(
    tokens("input_ids"),
    {
        "table": "embedding.token",
        "body.#.proj.3": "attention.self.q",
        "body.#.proj.0": "attention.self.k",
        "body.#.proj.1": "attention.self.v",
        "body.#.proj.2": "",
        "body.#.back.0": "attention.self.o",
        "body.#.back.1": "ffn.dense.down",
        # Nothing tells the two factors of a bilinear unit apart.
        "body.#.wide": "ffn.dense.up | ffn.dense.gate",
        "body.#.thin": "ffn.dense.up | ffn.dense.gate",
        "answer": "head.lm",
    },
    unreached=frozenset({"body.#.proj.2"}),
)
class InPlace(nn.Module):
    """Everything is written into something: residuals by `+=`, heads into slices, the bilinear unit by `*=`."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, HIDDEN)
        self.body = nn.ModuleList(_InPlaceBlock() for _ in range(2))
        self.answer = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        for block in self.body:
            x = block(x)
        return self.answer(x)


class _BareBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x1, self.x2, self.x3 = (nn.Linear(HIDDEN, INNER) for _ in range(3))
        self.x4 = nn.Linear(INNER, HIDDEN)
        self.x5, self.x6 = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)
        self.x7, self.x8 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (HEADS, HEAD)).transpose(1, 2) for f in (self.x2, self.x3, self.x1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.x7(self.x4(y.transpose(1, 2).flatten(2)))
        return self.x8(self.x6(F.leaky_relu(self.x5(x))))


@specimen(
    tokens(),
    {
        "i": "embedding.token",
        "j.#.x2": "attention.self.q",
        "j.#.x3": "attention.self.k",
        "j.#.x1": "attention.self.v",
        "j.#.x4": "attention.self.o",
        "j.#.x5": "ffn.dense.up",
        "j.#.x6": "ffn.dense.down",
        "k": "head.lm",
    },
)
class NoResidual(nn.Module):
    """No residual stream: every matrix reads the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Embedding(VOCABULARY, HIDDEN)
        self.j = nn.Sequential(*(_BareBlock() for _ in range(3)))
        self.k = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.k(self.j(self.i(tokens)))


class _BucketBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Linear(HIDDEN, INNER, bias=False)
        self.shared = nn.Linear(HIDDEN, 2 * HEAD, bias=False)
        self.out = nn.Linear(INNER, HIDDEN, bias=False)
        self.dense = nn.ModuleDict({"q": nn.Linear(HIDDEN, WIDE), "v": nn.Linear(WIDE, HIDDEN)})
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(2))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self.norms[0](x)
        q = self.gate_up(y).view(*x.shape[:2], HEADS, HEAD).transpose(1, 2)
        k, v = self.shared(y).split((HEAD, HEAD), dim=-1)  # one head of keys and values for all queries
        weights = (torch.einsum("bhtd,bsd->bhts", q, k) + bias).softmax(-1)
        x = x + self.out(torch.einsum("bhts,bsd->bthd", weights, v).flatten(2))
        return x + self.dense["v"](F.relu(self.dense["q"](self.norms[1](x))).square())


@specimen(
    tokens(),
    {
        "wte": "embedding.token",
        "lm_head": "embedding.position",
        "ffn.#.gate_up": "attention.self.q",
        "ffn.#.shared": "attention.self.kv",
        "ffn.#.out": "attention.self.o",
        "ffn.#.dense.q": "ffn.dense.up",
        "ffn.#.dense.v": "ffn.dense.down",
    },
)
class RelativeTable(nn.Module):
    """One head of keys and values in one matrix, a table of score biases by distance, the head tied with a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, HIDDEN)
        self.lm_head = nn.Embedding(2 * LENGTH + 1, HEADS)
        self.ffn = nn.ModuleList(_BucketBlock() for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        distances = (places[:, None] - places[None, :]).clamp(-LENGTH, LENGTH) + LENGTH
        bias = self.lm_head(distances).permute(2, 0, 1)[None]
        x = self.wte(tokens) * HIDDEN**0.5
        for block in self.ffn:
            x = block(x, bias)
        return (x * HIDDEN**-0.5) @ self.wte.weight.T


class _Attend(nn.Module):
    """As small implementations write it: a module per head, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = (nn.Linear(HIDDEN, HEAD, bias=False) for _ in range(3))
        self.register_buffer("tril", torch.tril(torch.ones(32, 32)))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        weights = self.g(x) @ self.f(x).transpose(-2, -1) * HEAD**-0.5
        weights = weights.masked_fill(self.tril[:length, :length] == 0, float("-inf"))
        return F.softmax(weights, dim=-1) @ self.h(x)


class _HeadsBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleList(_Attend() for _ in range(HEADS))
        self.join = nn.Linear(INNER, HIDDEN)
        self.net = nn.Sequential(nn.Linear(HIDDEN, WIDE), nn.ReLU(), nn.Linear(WIDE, HIDDEN), nn.Dropout(0.1))
        self.ln1, self.ln2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln1(x)
        x = x + self.join(torch.cat([unit(y) for unit in self.units], dim=-1))
        return x + self.net(self.ln2(x))


@specimen(
    tokens("idx"),
    {
        "first": "embedding.token",
        "second": "embedding.position",
        "stages.#.units.#.g": "attention.self.q",
        "stages.#.units.#.f": "attention.self.k",
        "stages.#.units.#.h": "attention.self.v",
        "stages.#.join": "attention.self.o",
        "stages.#.net.0": "ffn.dense.up",
        "stages.#.net.2": "ffn.dense.down",
        "third": "head.lm",
    },
)
class HeadModules(nn.Module):
    """A module per attention head, their outputs concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(32, HIDDEN)
        self.stages = nn.Sequential(*[_HeadsBlock() for _ in range(2)])
        self.last = nn.LayerNorm(HIDDEN)
        self.third = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.first(idx) + self.second(torch.arange(idx.shape[1], device=idx.device))
        return self.third(self.last(self.stages(x)))
