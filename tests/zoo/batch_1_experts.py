"""Experts in the many ways in which people write them, and a shared one beside."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.zoo.specimens import HEAD, HEADS, HIDDEN, INNER, VOCABULARY, WIDE, specimen, tokens

COUNT, CHOSEN, NARROW = 5, 2, 28


class _Look(nn.Module):
    """A plain attention, so that the experts stand in a model."""

    def __init__(self) -> None:
        super().__init__()
        self.m1 = nn.Linear(HIDDEN, 3 * INNER, bias=False)
        self.m2 = nn.Linear(INNER, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.m1(x).unflatten(-1, (3, HEADS, HEAD)).permute(2, 0, 3, 1, 4)
        return self.m2(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class _GatheredExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(COUNT, HIDDEN) * 0.1)
        self.w1 = nn.Parameter(torch.randn(COUNT, HIDDEN, NARROW) * 0.1)
        self.w2 = nn.Parameter(torch.randn(COUNT, NARROW, HIDDEN) * 0.1)
        self.w3 = nn.Parameter(torch.randn(COUNT, HIDDEN, NARROW) * 0.1)
        self.always = nn.ModuleDict({"x": nn.Linear(HIDDEN, WIDE), "y": nn.Linear(WIDE, HIDDEN)})

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, HIDDEN)
        weights, chosen = torch.topk(F.linear(flat, self.query).softmax(-1), CHOSEN, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for slot in range(CHOSEN):
            picked = chosen[:, slot]
            y = torch.bmm(flat[:, None], self.w1[picked]) * F.silu(torch.bmm(flat[:, None], self.w3[picked]))
            out = out + weights[:, slot, None] * torch.bmm(y, self.w2[picked])[:, 0]
        return out.view_as(x) + self.always["y"](F.gelu(self.always["x"](x)))


class _GatheredBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.attn = _Look(), _GatheredExperts()
        self.n1, self.n2 = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mlp(self.n1(x))
        return x + self.attn(self.n2(x))


@specimen(
    tokens(),
    {
        "voc": "embedding.token",
        "lay.#.mlp.m1": "attention.self.qkv",
        "lay.#.mlp.m2": "attention.self.o",
        "lay.#.attn.query": "router",
        "lay.#.attn.w1": "ffn.expert.up",
        "lay.#.attn.w3": "ffn.expert.gate",
        "lay.#.attn.w2": "ffn.expert.down",
        "lay.#.attn.always.x": "ffn.shared.up",
        "lay.#.attn.always.y": "ffn.shared.down",
        "cls": "head.lm",
    },
)
class GatheredExperts(nn.Module):
    """3-D parameters, rows gathered by the router's choice, `bmm`; a shared expert beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.voc = nn.Embedding(VOCABULARY, HIDDEN)
        self.lay = nn.ModuleList(_GatheredBlock() for _ in range(2))
        self.cls = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.voc(tokens)
        for block in self.lay:
            x = block(x)
        return self.cls(x)


class _One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(HIDDEN, NARROW), nn.Linear(NARROW, HIDDEN), nn.Linear(HIDDEN, NARROW)

    def forward(self, x: Tensor) -> Tensor:
        return self.k(F.silu(self.q(x)) * self.v(x))


class _LoopedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(HIDDEN, COUNT, bias=False)
        self.heads = nn.ModuleList(_One() for _ in range(COUNT))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(-1, HIDDEN)
        weights, chosen = torch.topk(self.lm_head(flat), CHOSEN)
        weights = F.softmax(weights, dim=1, dtype=torch.float)
        out = torch.zeros(flat.shape, dtype=flat.dtype, device=flat.device)
        mask = F.one_hot(chosen, num_classes=COUNT).permute(2, 1, 0)
        for number, one in enumerate(self.heads):
            slot, row = torch.where(mask[number])
            out.index_add_(0, row, one(flat[row]) * weights[row, slot, None])
        return out.view(x.shape)


class _LoopedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre, self.post = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.f, self.g = _Look(), _LoopedExperts()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x + self.f(x))
        return self.post(x + self.g(x))


@specimen(
    tokens(),
    {
        "gate": "embedding.token",
        "up.#.f.m1": "attention.self.qkv",
        "up.#.f.m2": "attention.self.o",
        "up.#.g.lm_head": "router",
        "up.#.g.heads.#.q": "ffn.expert.gate",
        "up.#.g.heads.#.v": "ffn.expert.up",
        "up.#.g.heads.#.k": "ffn.expert.down",
        "down": "head.lm",
    },
    meta=False,
)
class LoopedExperts(nn.Module):
    """A loop over experts, each of which takes its rows and adds them back by `index_add_`; post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Embedding(VOCABULARY, HIDDEN)
        self.up = nn.Sequential(_LoopedBlock(), _LoopedBlock())
        self.down = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.up(self.gate(tokens)))


class _SkippingExperts(_LoopedExperts):
    """Leaves out experts that nobody chose, and masks by comparison."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, HIDDEN)
        weights, chosen = self.lm_head(flat).sigmoid().topk(CHOSEN, dim=-1)
        out = torch.zeros_like(flat)
        for number in range(COUNT):
            hit = chosen == number
            rows = hit.any(-1)
            if not rows.any():
                continue
            out[rows] += self.heads[number](flat[rows]) * weights[hit].unsqueeze(-1)
        return out.reshape(x.shape)


class _SkippingBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)
        self.f, self.g = _Look(), _SkippingExperts()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.f(self.one(x))
        return x + self.g(self.two(x))


@specimen(
    tokens(),
    {
        "src": "embedding.token",
        "net.#.f.m1": "attention.self.qkv",
        "net.#.f.m2": "attention.self.o",
        "net.#.g.lm_head": "router",
        "net.#.g.heads.#.q": "ffn.expert.gate",
        "net.#.g.heads.#.v": "ffn.expert.up",
        "net.#.g.heads.#.k": "ffn.expert.down",
        "dst": "head.lm",
    },
    meta=False,
)
class SkippingExperts(nn.Module):
    """The loop asks whether anybody chose the expert (`if not rows.any()`) and writes by a mask (`out[rows] +=`)."""

    def __init__(self) -> None:
        super().__init__()
        self.src = nn.Embedding(VOCABULARY, HIDDEN)
        self.net = nn.Sequential(_SkippingBlock(), _SkippingBlock())
        self.dst = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dst(self.net(self.src(tokens)))


class _SoftExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r = nn.Linear(HIDDEN, COUNT)
        self.s = nn.Parameter(torch.randn(COUNT, HIDDEN, 2 * NARROW) * 0.1)
        self.t = nn.Parameter(torch.randn(COUNT, NARROW, HIDDEN) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.einsum("btd,edf->btef", x, self.s).chunk(2, -1)
        y = torch.einsum("btef,efd->bted", one.sigmoid() * two, self.t)
        return torch.einsum("bted,bte->btd", y, self.r(x).softmax(-1))


class _BlendedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Linear(HIDDEN, COUNT)
        self.many = nn.ModuleList(
            nn.Sequential(nn.Linear(HIDDEN, NARROW), nn.GELU(), nn.Linear(NARROW, HIDDEN)) for _ in range(COUNT)
        )

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.pick(x), dim=-1)
        return (torch.stack([one(x) for one in self.many], dim=2) * shares[..., None]).sum(dim=2)


class _SoftBlock(nn.Module):
    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.aa, self.bb = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.cc, self.dd = _Look(), experts

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.cc(self.aa(x))
        return x + self.dd(self.bb(x))


@specimen(
    tokens(),
    {
        "w": "embedding.token",
        "x.#.cc.m1": "attention.self.qkv",
        "x.#.cc.m2": "attention.self.o",
        "x.0.dd.r": "router",
        "x.0.dd.s": "ffn.expert.gate_up",
        "x.0.dd.t": "ffn.expert.down",
        "x.1.dd.pick": "router",
        "x.1.dd.many.#.0": "ffn.expert.up",
        "x.1.dd.many.#.2": "ffn.expert.down",
        "y": "head.lm",
    },
)
class SoftMixture(nn.Module):
    """Every expert sees every token and the router weighs them: no choice is made. By einsum, and by a list."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Embedding(VOCABULARY, HIDDEN)
        self.x = nn.Sequential(_SoftBlock(_SoftExperts()), _SoftBlock(_BlendedExperts()))
        self.y = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.y(self.x(self.w(tokens)))


class _CapacityExperts(nn.Module):
    SEATS = 3

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(HIDDEN, COUNT, bias=False)
        self.wi = nn.Parameter(torch.randn(COUNT, HIDDEN, NARROW) * 0.1)
        self.wo = nn.Parameter(torch.randn(COUNT, NARROW, HIDDEN) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        # Experts choose tokens: the softmax runs over experts, the choice over tokens.
        shares, rows = self.value(flat).softmax(-1).T.topk(self.SEATS, dim=-1)
        y = torch.bmm(torch.relu(torch.bmm(flat[rows], self.wi)), self.wo) * shares[..., None]
        return torch.zeros_like(flat).index_add(0, rows.flatten(), y.flatten(0, 1)).view_as(x)


class _CapacityBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2 = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)
        self.first, self.second = _Look(), _CapacityExperts()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(self.l1(x))
        return x + self.second(self.l2(x))


@specimen(
    tokens(),
    {
        "emb": "embedding.token",
        "seq.#.first.m1": "attention.self.qkv",
        "seq.#.first.m2": "attention.self.o",
        "seq.#.second.value": "router",
        "seq.#.second.wi": "ffn.expert.up",
        "seq.#.second.wo": "ffn.expert.down",
        "fin": "head.lm",
    },
)
class ExpertsChoose(nn.Module):
    """Experts choose their tokens instead of tokens their experts."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, HIDDEN)
        self.seq = nn.Sequential(_CapacityBlock(), _CapacityBlock())
        self.fin = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fin(self.seq(self.emb(tokens)))
