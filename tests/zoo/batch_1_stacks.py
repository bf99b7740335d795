"""Encoders, decoders, pictures and signals: other inputs, other ends, and PyTorch's own blocks."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import BATCH, HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, causal, specimen, tokens


class _TorchBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True)
        self.linear_1, self.linear_2, self.linear_3 = (
            nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN), nn.Linear(HIDDEN, WIDE)
        )  # fmt: skip
        self.norm_1, self.norm_2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.mixer(y, y, y, need_weights=False, attn_mask=causal(x.shape[1], x.device))[0]
        y = self.norm_2(x)
        return x + self.linear_2(F.softplus(self.linear_1(y)) * self.linear_3(y))


@specimen(
    tokens(),
    {
        "look": "embedding.token",
        "steps.#.mixer": "attention.self.qkvo",
        "steps.#.linear_1": "ffn.dense.gate",
        "steps.#.linear_3": "ffn.dense.up",
        "steps.#.linear_2": "ffn.dense.down",
        "tell": "head.lm",
    },
)
class TorchAttention(nn.Module):
    """`nn.MultiheadAttention` in a block of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Embedding(VOCABULARY, HIDDEN)
        self.steps = nn.Sequential(_TorchBlock(), _TorchBlock())
        self.tell = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tell(self.steps(self.look(tokens)))


@specimen(
    tokens("text"),
    {
        "vocab": "embedding.token",
        "model.layers.#.self_attn": "attention.self.qkvo",
        "model.layers.#.linear1": "ffn.dense.up",
        "model.layers.#.linear2": "ffn.dense.down",
        "answer": "head.classifier",
    },
)
class TorchEncoder(nn.Module):
    """`nn.TransformerEncoder`, which in eval mode runs as one fused operator on a CPU; the mean is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.vocab = nn.Embedding(VOCABULARY, HIDDEN)
        layer = nn.TransformerEncoderLayer(HIDDEN, HEADS, WIDE, batch_first=True, activation="gelu", norm_first=False)
        self.model = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.answer = nn.Linear(HIDDEN, 7)

    def forward(self, text: Tensor) -> Tensor:
        return self.answer(self.model(self.vocab(text)).mean(1))


def _pair(source: str, target: str) -> dict[str, Tensor]:
    return {
        source: torch.randint(0, VOCABULARY, (BATCH, LENGTH)),
        target: torch.randint(0, VOCABULARY, (BATCH, LENGTH - 4)),
    }


@specimen(
    lambda: _pair("src", "tgt"),
    {
        "tok": "embedding.token",
        "t.encoder.layers.#.self_attn": "encoder.attention.self.qkvo",
        "t.encoder.layers.#.linear1": "encoder.ffn.dense.up",
        "t.encoder.layers.#.linear2": "encoder.ffn.dense.down",
        "t.decoder.layers.#.self_attn": "decoder.attention.self.qkvo",
        "t.decoder.layers.#.multihead_attn": "decoder.attention.cross.qkvo",
        "t.decoder.layers.#.linear1": "decoder.ffn.dense.up",
        "t.decoder.layers.#.linear2": "decoder.ffn.dense.down",
        "gen": "head.lm",
    },
    meta=False,  # PyTorch asks whether the mask is the causal one
)
class TorchTransformer(nn.Module):
    """`nn.Transformer`, one embedding for both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(VOCABULARY, HIDDEN)
        self.t = nn.Transformer(HIDDEN, HEADS, 2, 2, WIDE, batch_first=True)
        self.t.encoder.enable_nested_tensor = False
        self.gen = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        mask = causal(tgt.shape[1], tgt.device)
        return self.gen(self.t(self.tok(src), self.tok(tgt), tgt_mask=mask))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r, self.s, self.t = (nn.Linear(HIDDEN, INNER) for _ in range(3))
        self.u = nn.Linear(INNER, HIDDEN)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        def heads(z: Tensor) -> Tensor:
            return z.view(z.shape[0], z.shape[1], HEADS, HEAD).transpose(1, 2)

        scores = torch.matmul(heads(self.t(x)), heads(self.r(y)).transpose(-2, -1)) / HEAD**0.5
        if mask is not None:
            scores = scores.masked_fill(mask, -1e9)
        return self.u((scores.softmax(-1) @ heads(self.s(y))).transpose(1, 2).contiguous().flatten(2))


class _Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin_a, self.lin_b = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin_b(F.relu(self.lin_a(x)))


class _Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = _Attention(), _Feed()
        self.l1, self.l2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.l1(x)
        x = x + self.p1(y, y)
        return x + self.p2(self.l2(x))


class _Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2, self.p3 = _Attention(), _Attention(), _Feed()
        self.l1, self.l2, self.l3 = (nn.LayerNorm(HIDDEN) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = self.l1(x)
        x = x + self.p2(y, y, causal(x.shape[1], x.device))
        x = x + self.p1(self.l2(x), memory)
        return x + self.p3(self.l3(x))


@dataclasses.dataclass
class Output:
    guesses: Tensor
    memory: Tensor


@specimen(
    lambda: _pair("a", "b"),
    {
        "words": "embedding.token",
        # Called the wrong way round.
        "decoder.#.p1.t": "encoder.attention.self.q",
        "decoder.#.p1.r": "encoder.attention.self.k",
        "decoder.#.p1.s": "encoder.attention.self.v",
        "decoder.#.p1.u": "encoder.attention.self.o",
        "decoder.#.p2.lin_a": "encoder.ffn.dense.up",
        "decoder.#.p2.lin_b": "encoder.ffn.dense.down",
        "encoder.#.p2.t": "decoder.attention.self.q",
        "encoder.#.p2.r": "decoder.attention.self.k",
        "encoder.#.p2.s": "decoder.attention.self.v",
        "encoder.#.p2.u": "decoder.attention.self.o",
        "encoder.#.p1.t": "decoder.attention.cross.q",
        "encoder.#.p1.r": "decoder.attention.cross.k",
        "encoder.#.p1.s": "decoder.attention.cross.v",
        "encoder.#.p1.u": "decoder.attention.cross.o",
        "encoder.#.p3.lin_a": "decoder.ffn.dense.up",
        "encoder.#.p3.lin_b": "decoder.ffn.dense.down",
    },
)
class Translator(nn.Module):
    """Encoder and decoder, each called after the other; one embedding for both sides and for the head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.decoder = nn.ModuleList(_Reader() for _ in range(2))
        self.encoder = nn.ModuleList(_Writer() for _ in range(2))

    def forward(self, a: Tensor, b: Tensor) -> Output:
        memory = self.words(a)
        for block in self.decoder:
            memory = block(memory)
        x = self.words(b)
        for block in self.encoder:
            x = block(x, memory)
        return Output(F.linear(x, self.words.weight), memory)


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, HIDDEN, kernel_size=4, stride=4)
        self.mark = nn.Parameter(torch.randn(1, 1, HIDDEN) * 0.1)
        self.grid = nn.Parameter(torch.randn(1, 17, HIDDEN) * 0.1)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.cut(picture).flatten(2).transpose(1, 2)
        return torch.cat((self.mark.expand(x.shape[0], -1, -1), x), dim=1) + self.grid


class _PictureBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(HIDDEN, 3 * INNER, bias=False)
        self.fc2 = nn.Linear(INNER, HIDDEN)
        self.qkv = nn.Linear(HIDDEN, WIDE)
        self.proj = nn.Linear(WIDE, HIDDEN)
        self.scale = nn.Parameter(torch.full((HIDDEN,), 0.1))
        self.ln1, self.ln2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = self.fc1(self.ln1(x)).reshape(batch, count, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * HEAD**-0.5) @ k.transpose(-2, -1)
        y = (weights.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, count, INNER)
        x = x + self.scale * self.fc2(y)
        return x + self.scale * self.proj(F.gelu(self.qkv(self.ln2(x))))


@specimen(
    lambda: {"picture": torch.randn(BATCH, 3, 16, 16)},
    {
        # The patch convolution is no matrix, and so no weight of the map.
        "front.mark": "other",
        "front.grid": "embedding.position",
        "rest.#.fc1": "attention.self.qkv",
        "rest.#.fc2": "attention.self.o",
        "rest.#.qkv": "ffn.dense.up",
        "rest.#.proj": "ffn.dense.down",
        "lm_head": "head.classifier",
        "spare": "",
    },
    unreached=frozenset({"spare"}),
)
class Picture(nn.Module):
    """Patches by a convolution, a class token, learned positions, a packed qkv by view and unbind, ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.front = _Patches()
        self.rest = nn.Sequential(*(_PictureBlock() for _ in range(3)))
        self.last = nn.LayerNorm(HIDDEN)
        self.lm_head = nn.Linear(HIDDEN, 10)
        self.spare = nn.Linear(HIDDEN, 10)

    def forward(self, picture: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.last(self.rest(self.front(picture)))
        if self.training:
            return self.lm_head(x[:, 0]), self.spare(x[:, 1:].mean(1))
        return self.lm_head(x[:, 0])


class _Latents(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(5, HIDDEN) * 0.1)
        self.read, self.think = _Attention(), _Feed()

    def forward(self, x: Tensor) -> Tensor:
        y = self.seeds.expand(x.shape[0], -1, -1)
        y = y + self.read(y, x)
        return y + self.think(F.layer_norm(y, (HIDDEN,)))


@specimen(
    lambda: {"signal": torch.randn(BATCH, 23, 9)},
    {
        "embed": "embedding",
        "trunk.#.p1.t": "attention.self.q",
        "trunk.#.p1.r": "attention.self.k",
        "trunk.#.p1.s": "attention.self.v",
        "trunk.#.p1.u": "attention.self.o",
        "trunk.#.p2.lin_a": "ffn.dense.up",
        "trunk.#.p2.lin_b": "ffn.dense.down",
        "pool.seeds": "other",
        "pool.read.t": "attention.cross.q",
        "pool.read.r": "attention.cross.k",
        "pool.read.s": "attention.cross.v",
        "pool.read.u": "attention.cross.o",
        "pool.think.lin_a": "ffn.dense.up",
        "pool.think.lin_b": "ffn.dense.down",
        "end": "head.classifier",
    },
)
class Signal(nn.Module):
    """No ids at all: nine channels over time into a linear layer, blocks, and learned queries that pool them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(9, HIDDEN)
        self.trunk = nn.Sequential(_Reader(), _Reader())
        self.pool = _Latents()
        self.end = nn.Linear(5 * HIDDEN, 3)

    def forward(self, signal: Tensor) -> Tensor:
        times = torch.arange(signal.shape[1], device=signal.device)[:, None]
        rates = torch.exp(torch.arange(0, HIDDEN, 2, device=signal.device) * -0.1)
        places = torch.cat((torch.sin(times * rates), torch.cos(times * rates)), dim=-1)
        return self.end(self.pool(self.trunk(self.embed(signal) + places)).flatten(1))


class _PointwiseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (nn.Conv1d(HIDDEN, INNER, 1) for _ in range(3))
        self.c4 = nn.Conv1d(INNER, HIDDEN, 1)
        self.c5, self.c6 = nn.Conv1d(HIDDEN, WIDE, 1), nn.Conv1d(WIDE, HIDDEN, 1)
        self.g1, self.g2 = nn.GroupNorm(1, HIDDEN), nn.GroupNorm(1, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, time)
        y = self.g1(x)
        one, two, three = (c(y).unflatten(1, (HEADS, HEAD)) for c in (self.c1, self.c2, self.c3))
        weights = torch.einsum("bhds,bhdt->bhst", two, one).div(HEAD**0.5).softmax(dim=-1)
        x = x + self.c4(torch.einsum("bhst,bhdt->bhds", weights, three).flatten(1, 2))
        return x + self.c6(torch.tanh(self.c5(self.g2(x))))


@specimen(
    tokens("phones"),
    {
        "phone": "embedding.token",
        "enc.#.c2": "attention.self.q",
        "enc.#.c1": "attention.self.k",
        "enc.#.c3": "attention.self.v",
        "enc.#.c4": "attention.self.o",
        "enc.#.c5": "ffn.dense.up",
        "enc.#.c6": "ffn.dense.down",
        "stats": "head",
    },
)
class Pointwise(nn.Module):
    """Channels first: every matrix is a convolution of kernel one."""

    def __init__(self) -> None:
        super().__init__()
        self.phone = nn.Embedding(VOCABULARY, HIDDEN)
        self.enc = nn.Sequential(_PointwiseBlock(), _PointwiseBlock())
        self.stats = nn.Conv1d(HIDDEN, 2 * 13, 1)

    def forward(self, phones: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = self.stats(self.enc(self.phone(phones).transpose(1, 2))).chunk(2, dim=1)
        return mean, deviation.exp()


class _ModulatedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mod = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 6 * HIDDEN))
        self.x_attn, self.x_ffn = _Attention(), _Feed()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.mod(condition)[:, None].chunk(6, dim=-1)
        y = F.layer_norm(x, (HIDDEN,)) * (1 + scale) + shift
        x = x + gate * self.x_attn(y, y)
        y = F.layer_norm(x, (HIDDEN,)) * (1 + scale_2) + shift_2
        return x + gate_2 * self.x_ffn(y)


@specimen(
    lambda: {"latent": torch.randn(BATCH, 12, 8), "step": torch.tensor([3, 500])},
    {
        "x_in": "embedding",
        # Sines of the step through a small network: no table, and no block of the stream.
        "t_in.0": "embedding.time",
        "t_in.2": "embedding.time",
        "dit.#.mod.1": "modulation",
        "dit.#.x_attn.t": "attention.self.q",
        "dit.#.x_attn.r": "attention.self.k",
        "dit.#.x_attn.s": "attention.self.v",
        "dit.#.x_attn.u": "attention.self.o",
        "dit.#.x_ffn.lin_a": "ffn.dense.up",
        "dit.#.x_ffn.lin_b": "ffn.dense.down",
        "x_out": "head",
    },
)
class Diffusion(nn.Module):
    """A denoiser: a condition scales, shifts and gates every block."""

    def __init__(self) -> None:
        super().__init__()
        self.x_in = nn.Linear(8, HIDDEN)
        self.t_in = nn.Sequential(nn.Linear(20, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.dit = nn.ModuleList(_ModulatedBlock() for _ in range(2))
        self.x_out = nn.Linear(HIDDEN, 8)

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(10, device=step.device) * -0.9)
        angles = step[:, None] * rates[None]
        condition = self.t_in(torch.cat((angles.cos(), angles.sin()), dim=-1))
        x = self.x_in(latent)
        for block in self.dit:
            x = block(x, condition)
        return self.x_out(x)


class _SharedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.att, self.net = _Attention(), _Feed()
        self.n1, self.n2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.n1(x + self.att(x, x, mask))
        return self.n2(x + self.net(x))


@specimen(
    lambda: {
        "ids": torch.randint(0, VOCABULARY, (BATCH, LENGTH)),
        "kinds": torch.randint(0, 2, (BATCH, LENGTH)),
        "there": torch.arange(LENGTH).expand(BATCH, -1) < torch.tensor([[LENGTH], [LENGTH - 3]]),
    },
    {
        "k1": "embedding.token",
        "k2": "embedding.position",
        "k3": "embedding.type",
        "k4": "embedding.projection",
        "group.att.t": "attention.self.q",
        "group.att.r": "attention.self.k",
        "group.att.s": "attention.self.v",
        "group.att.u": "attention.self.o",
        "group.net.lin_a": "ffn.dense.up",
        "group.net.lin_b": "ffn.dense.down",
        "k5": "head.transform",
        "k6": "head.pooler",
        "k7": "head.classifier",
    },
)
class Bidirectional(nn.Module):
    """A masked model: narrow embeddings widened, one block run four times, a pooler, a head tied to the narrow table."""

    def __init__(self) -> None:
        super().__init__()
        self.k1, self.k2, self.k3 = nn.Embedding(VOCABULARY, 20), nn.Embedding(40, 20), nn.Embedding(2, 20)
        self.k4 = nn.Linear(20, HIDDEN)
        self.group = _SharedBlock()
        self.k5, self.k6, self.k7 = nn.Linear(HIDDEN, 20), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, ids: Tensor, kinds: Tensor, there: Tensor) -> dict[str, Tensor]:
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.k4(F.layer_norm(self.k1(ids) + self.k2(places) + self.k3(kinds), (20,)))
        for _ in range(4):
            x = self.group(x, ~there[:, None, None, :])
        guesses = F.gelu(self.k5(x)) @ self.k1.weight.transpose(0, 1)
        return {"guesses": guesses, "next": self.k7(torch.tanh(self.k6(x[:, 0])))}
