"""The last batch, second part: pictures, speech, two stacks, two towers, latents, noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import BATCH, HEAD, HEADS, HIDDEN, INNER, LENGTH, VOCABULARY, WIDE, specimen


def _picture() -> dict[str, Tensor]:
    return {"img": torch.randn(BATCH, 3, 32, 32)}


class _LookAround(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(HIDDEN, 3 * INNER)
        self.head = nn.Linear(INNER, HIDDEN)
        self.qn, self.kn = nn.LayerNorm(HEAD), nn.LayerNorm(HEAD)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.embed(x).view(b, n, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        attn = (self.qn(q) * HEAD**-0.5) @ self.kn(k).transpose(-2, -1)
        attn = (attn - attn.amax(-1, keepdim=True)).exp()
        attn = attn / attn.sum(-1, keepdim=True)
        return self.head((attn @ v).transpose(1, 2).flatten(2))


class _SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN), nn.Linear(HIDDEN, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.c(x) * F.silu(self.a(x)))


class _Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.inner, self.gamma = nn.LayerNorm(HIDDEN), inner, nn.Parameter(torch.full((HIDDEN,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.inner(self.norm(x))


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Linear(3 * 8 * 8, HIDDEN)
        self.pos = nn.Parameter(torch.randn(16, HIDDEN) * 0.2)
        self.extra = nn.Parameter(torch.randn(3, HIDDEN) * 0.2)

    def forward(self, img: Tensor) -> Tensor:
        x = img.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(len(img), 16, -1)
        return torch.cat([self.extra.expand(len(img), -1, -1), self.cut(x) + self.pos], 1)


@specimen(
    _picture,
    {
        "stem.cut": "embedding.patch",
        "stem.pos": "embedding.position",
        "stem.extra": "embedding | other",  # one for the class, two that only take part
        "trunk.#.inner.embed": "attention.self.qkv",
        "trunk.#.inner.head": "attention.self.o",
        "trunk.#.inner.a": "ffn.dense.gate",
        "trunk.#.inner.b": "ffn.dense.down",
        "trunk.#.inner.c": "ffn.dense.up",
        "final": "head.classifier",
    },
)
class Patches(nn.Module):
    """A ViT with registers, scaled branches, normed heads and a softmax written out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem()
        self.trunk = nn.Sequential(*(_Scaled(part()) for _ in range(2) for part in (_LookAround, _SwiGlu)))
        self.final = nn.Linear(HIDDEN, 10)

    def forward(self, img: Tensor) -> Tensor:
        return self.final(F.layer_norm(self.trunk(self.stem(img))[:, 0], (HIDDEN,)))


class _Window(nn.Module):
    def __init__(self, dim: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.proj_in, self.proj_out = nn.Linear(dim, 3 * INNER), nn.Linear(INNER, dim)
        self.table = nn.Parameter(torch.randn(49, HEADS) * 0.3)
        self.conv1, self.conv2 = nn.Linear(dim, 2 * WIDE), nn.Linear(2 * WIDE, dim)
        row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        where = torch.stack([row.flatten(), column.flatten()])
        apart = where[:, :, None] - where[:, None, :] + 3
        self.register_buffer("index", apart[0] * 7 + apart[1], persistent=False)

    def regions(self, device: torch.device) -> Tensor:
        """(windows, 16, 16), minus a hundred between pixels that only the roll made neighbors."""
        names = torch.zeros(self.side, self.side, device=device)
        cuts = (slice(0, -4), slice(-4, -self.shift), slice(-self.shift, None))
        for i, rows in enumerate(cuts):
            for j, columns in enumerate(cuts):
                names[rows, columns] = 3 * i + j
        names = names.view(self.side // 4, 4, self.side // 4, 4).transpose(1, 2).reshape(-1, 16)
        return (names[:, None] != names[:, :, None]).float() * -100.0

    def forward(self, x: Tensor) -> Tensor:  # (batch, side, side, dim)
        b, side, _, dim = x.shape
        y = self.n1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.view(b, side // 4, 4, side // 4, 4, dim).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, dim)
        q, k, v = self.proj_in(y).reshape(-1, 16, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        s = q @ k.transpose(-1, -2) / HEAD**0.5
        s = s + self.table[self.index.view(-1)].view(16, 16, HEADS).permute(2, 0, 1)[None]
        if self.shift:
            mask = self.regions(x.device)
            s = (s.view(b, len(mask), HEADS, 16, 16) + mask[None, :, None]).view(-1, HEADS, 16, 16)
        y = self.proj_out((s.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, INNER))
        y = y.view(b, side // 4, side // 4, 4, 4, dim).permute(0, 1, 3, 2, 4, 5).reshape(b, side, side, dim)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.conv2(F.gelu(self.conv1(self.n2(x))))


class _Halve(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.mlp(self.norm(x))


@specimen(
    _picture,
    {
        "n.#.proj_in": "attention.self.qkv",
        "n.#.proj_out": "attention.self.o",
        "n.#.table": "embedding.position | attention.self.bias",
        "n.#.conv1": "ffn.dense.up",
        "n.#.conv2": "ffn.dense.down",
        "n.#.mlp": "embedding.merger",  # the step from one resolution to the next
        "last": "head.classifier",
    },
)
class ShiftedWindows(nn.Module):
    """A Swin: shifted windows with a mask, a table of biases, half the resolution twice as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, HIDDEN, 2, 2)
        self.n = nn.Sequential(
            *(_Window(HIDDEN, 16, 0), _Window(HIDDEN, 16, 2), _Halve(HIDDEN)),
            *(_Window(2 * HIDDEN, 8, 0), _Window(2 * HIDDEN, 8, 2)),
        )
        self.last = nn.Linear(2 * HIDDEN, 10)

    def forward(self, img: Tensor) -> Tensor:
        return self.last(self.n(self.cut(img).permute(0, 2, 3, 1)).mean((1, 2)))


class _Halfstep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.u, self.d = nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.u(self.norm(x))
        return x + 0.5 * self.d(y * y.sigmoid())


class _Convolve(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.bn = nn.LayerNorm(HIDDEN), nn.BatchNorm1d(HIDDEN)
        self.q, self.v = nn.Conv1d(HIDDEN, 2 * HIDDEN, 1), nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.k = nn.Conv1d(HIDDEN, HIDDEN, 7, padding=3, groups=HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).transpose(1, 2)
        y = F.silu(self.bn(self.k(F.glu(self.q(y), dim=1))))
        return x + self.v(y).transpose(1, 2)


class _Listen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Linear(HIDDEN, INNER) for _ in range(4))
        self.fc5 = nn.Linear(INNER, HIDDEN)
        self.u, self.v = nn.Parameter(torch.randn(HEADS, HEAD) * 0.2), nn.Parameter(torch.randn(HEADS, HEAD) * 0.2)

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        b, t, _ = x.shape
        y = self.norm(x)
        v, k, q = (fc(y).view(b, t, HEADS, HEAD) for fc in (self.fc1, self.fc2, self.fc3))
        p = self.fc4(waves).view(-1, HEADS, HEAD)  # (2t - 1), from the furthest left to the furthest right
        near = torch.einsum("bihd,bjhd->bhij", q + self.u, k)
        far = torch.einsum("bihd,phd->bhip", q + self.v, p)
        here = torch.arange(t, device=x.device)
        far = far.gather(-1, (here[None] - here[:, None] + t - 1).expand(b, HEADS, t, t))
        weights = ((near + far) / math.sqrt(HEAD)).softmax(-1)
        return x + self.fc5(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(b, t, INNER))


class _Former(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.s1, self.s2, self.s3, self.s4 = _Halfstep(), _Listen(), _Convolve(), _Halfstep()
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        return self.norm(self.s4(self.s3(self.s2(self.s1(x), waves))))


@specimen(
    lambda: {"mel": torch.randn(BATCH, 44, 20)},
    {
        "flat": "embedding.projection",
        "many.#.s#.u": "ffn.dense.up",
        "many.#.s#.d": "ffn.dense.down",
        "many.#.s3.q": "mixer.in",
        "many.#.s3.v": "mixer.out",
        "many.#.s2.fc1": "attention.self.v",
        "many.#.s2.fc2": "attention.self.k",
        "many.#.s2.fc3": "attention.self.q",
        "many.#.s2.fc4": "embedding.position | attention.self.k | attention.self.position",  # keys by distance
        "many.#.s2.fc5": "attention.self.o",
        "many.#.s2.u": "other | attention.self.bias",
        "many.#.s2.v": "other | attention.self.bias",
        "chars": "head.lm | head.classifier",
    },
)
class Conformer(nn.Module):
    """Speech: two half feed-forwards around an attention by distance and a gated convolution, letters at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.flat, self.many = nn.Linear(8 * 5, HIDDEN), nn.ModuleList([_Former() for _ in range(2)])
        self.chars = nn.Linear(HIDDEN, 31)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.flat(self.sub(mel[:, None]).permute(0, 2, 1, 3).flatten(2))
        apart = torch.arange(1 - x.shape[1], x.shape[1], device=x.device)[:, None]
        angle = apart / 10000 ** (torch.arange(0, HIDDEN, 2, device=x.device) / HIDDEN)
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        for block in self.many:
            x = block(x, waves)
        return self.chars(x).log_softmax(-1)


class _Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(HIDDEN, 2 * INNER), nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)

    def forward(self, x: Tensor, y: Tensor, ahead: bool) -> Tensor:
        b, t, s = len(x), x.shape[1], y.shape[1]
        # Heads are folded into the batch.
        fold = lambda z, n: z.reshape(b, n, HEADS, HEAD).transpose(1, 2).reshape(b * HEADS, n, HEAD)  # noqa: E731
        left, right = self.l1(y).chunk(2, -1)
        scores = torch.bmm(fold(self.l2(x), t), fold(left, s).transpose(1, 2)) * HEAD**-0.5
        if not ahead:
            scores = scores + torch.full((t, s), float("-inf"), device=x.device).triu(1)
        out = torch.bmm(F.softmax(scores.float(), dim=-1).type_as(scores), fold(right, s))
        return self.l3(out.view(b, HEADS, t, HEAD).transpose(1, 2).reshape(b, t, INNER))


class _Source(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look, self.w, self.r = _Attend(), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x + self.look(x, x, True), (HIDDEN,))
        return F.layer_norm(x + self.r(torch.relu(self.w(x))), (HIDDEN,))


class _Target(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.w, self.r = _Attend(), _Attend(), nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, HIDDEN)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = F.layer_norm(x + self.two(x, x, False), (HIDDEN,))
        x = F.layer_norm(x + self.one(x, memory, True), (HIDDEN,))
        return F.layer_norm(x + self.r(torch.relu(self.w(x))), (HIDDEN,))


@specimen(
    lambda: {
        "german": torch.randint(0, VOCABULARY, (BATCH, LENGTH)),
        "english": torch.randint(0, VOCABULARY, (BATCH, 7)),
    },
    {
        "shared": "embedding.token",
        "a.#.look.l1": "attention.self.kv",
        "a.#.look.l2": "attention.self.q",
        "a.#.look.l3": "attention.self.o",
        "b.#.two.l1": "attention.self.kv",
        "b.#.two.l2": "attention.self.q",
        "b.#.two.l3": "attention.self.o",
        "b.#.one.l1": "attention.cross.kv",
        "b.#.one.l2": "attention.cross.q",
        "b.#.one.l3": "attention.cross.o",
        "a.#.w": "ffn.dense.up",
        "b.#.w": "ffn.dense.up",
        "a.#.r": "ffn.dense.down",
        "b.#.r": "ffn.dense.down",
    },
)
class Translation(nn.Module):
    """Two stacks for translation, as in 2017: post-norm, sines, one table for both languages and the scores of words."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(VOCABULARY, HIDDEN)
        self.a, self.b = nn.ModuleList([_Source(), _Source()]), nn.ModuleList([_Target(), _Target()])

    def enter(self, ids: Tensor) -> Tensor:
        angle = torch.arange(ids.shape[1], device=ids.device)[:, None] / 10000 ** (
            torch.arange(0, HIDDEN, 2, device=ids.device) / HIDDEN
        )
        return self.shared(ids) * HIDDEN**0.5 + torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def forward(self, german: Tensor, english: Tensor) -> Tensor:
        x, y = self.enter(german), self.enter(english)
        for source in self.a:
            x = source(x)
        for target in self.b:
            y = target(y, x)
        return F.linear(y, self.shared.weight)
