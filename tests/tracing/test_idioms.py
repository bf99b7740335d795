"""What people write around their layers, and how far a trace gets through it."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.modules import transformer
from torch.utils.checkpoint import checkpoint

import lorascope as ls
from tests.helpers.paths import ROOT

WIDTH, TOKENS = 32, torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]])
LENGTH = TOKENS.shape[1]
ROLES = {"q": "q", "k": "k", "v": "v", "o": "o", "up": "up", "down": "down"}


class Attention(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.register_buffer("ck", torch.zeros(4, 64, 4, 8), persistent=False)
        self.register_buffer("cv", torch.zeros(4, 64, 4, 8), persistent=False)
        self.mix = [model.mix]  # in a list: the model is no part of its layer

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (4, 8)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return x + self.o(self.mix[0](self, q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.up, self.down, self.activate = nn.Linear(WIDTH, 80), nn.Linear(80, WIDTH), [model.activate]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.activate[0](self.up(x)))


class Model(nn.Module):
    """Two plain layers; an idiom changes one of the methods."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, WIDTH)
        self.layers = nn.ModuleList(part(self) for _ in range(2) for part in (Attention, FeedForward))
        self.head = nn.Linear(WIDTH, 50)

    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def run(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.run(self.table(ids)))


IDIOMS: dict[str, type[Model]] = {}


def idiom(cls: type[Model]) -> type[Model]:
    IDIOMS[cls.__name__] = cls
    return cls


@idiom
class AutocastOfItsOwnDevice(Model):
    def run(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, dtype=torch.bfloat16):
            return super().run(x).float()


@idiom
class AutocastSwitchedOff(Model):
    def run(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().run(x)


@idiom
class AutocastOfCuda(Model):
    @torch.autocast("cuda", enabled=False)
    def run(self, x: Tensor) -> Tensor:
        return super().run(x)


@idiom
class AsksForAutocast(Model):
    def run(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type) or torch.is_autocast_enabled():
            x = x.to(torch.get_autocast_dtype(x.device.type))
        with torch.autocast(x.device.type, dtype=torch.get_autocast_dtype(x.device.type)):
            return super().run(x)


def scripted(code: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # people use it all the same
        return torch.jit.script(code)


@scripted
def scripted_gelu(x):
    return 0.5 * x * (1.0 + torch.tanh(0.79788456 * (x + 0.044715 * x * x * x)))


@scripted
def scripted_turn(x: Tensor, wide: int) -> Tensor:
    angles = torch.arange(x.size(2), device=x.device, dtype=torch.float32)
    return x * torch.cos(angles)[None, None, :, None] if wide > 3 else x


class ScriptedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


@idiom
class Scripted(Model):
    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(layer, scripted_turn(q, 4), scripted_turn(k, 4), v)

    def activate(self, x: Tensor) -> Tensor:
        return scripted_gelu(x)


@idiom
class ScriptedModule(Model):
    relu = scripted(ScriptedReLU())

    def activate(self, x: Tensor) -> Tensor:
        return type(self).relu(x)


@idiom
class CompiledLayers(Model):
    def __init__(self) -> None:
        super().__init__()
        self.compiled = [torch.compile(layer, backend="eager") for layer in self.layers]

    def run(self, x: Tensor) -> Tensor:
        for layer in self.compiled:
            x = layer(x)
        return x


@idiom
class CompiledFunction(Model):
    compiled = staticmethod(torch.compile(F.gelu, backend="eager"))

    def activate(self, x: Tensor) -> Tensor:
        return self.compiled(x)


@idiom
class Checkpointed(Model):
    def run(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        return x


class OwnGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)


@idiom
class OwnGradient(Model):
    def activate(self, x: Tensor) -> Tensor:
        return OwnGelu.apply(x)


@idiom
class ToCuda(Model):
    def run(self, x: Tensor) -> Tensor:
        x = x.cuda().to("cuda").to(torch.device("cuda", 0), torch.float32).to(device="cuda:0")
        return super().run(x + torch.zeros(WIDTH, device="cuda") + torch.ones(WIDTH, device=0))


@idiom
class CurrentDevice(Model):
    def run(self, x: Tensor) -> Tensor:
        return super().run(x * torch.arange(WIDTH, device=torch.cuda.current_device()))


@idiom
class CacheBySlice(Model):
    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, _ = q.shape
        layer.ck, layer.cv = layer.ck.to(q), layer.cv.to(q)
        layer.ck[:b, 0:n], layer.cv[:b, 0:n] = k.transpose(1, 2), v.transpose(1, 2)
        k, v = (cache[:b, :n].transpose(1, 2) for cache in (layer.ck, layer.cv))
        return (q @ k.transpose(2, 3) / math.sqrt(8)).softmax(-1) @ v


@idiom
class CacheByIndex(Model):
    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, _ = q.shape
        positions = torch.arange(n, device=q.device)
        layer.ck.index_copy_(1, positions, k.transpose(1, 2).expand(4, -1, -1, -1))
        layer.cv.index_put_((torch.arange(b)[:, None], positions[None]), v.transpose(1, 2))
        k, v = (cache[:b, :n].transpose(1, 2) for cache in (layer.ck, layer.cv))
        return (q @ k.transpose(2, 3) / math.sqrt(8)).softmax(-1) @ v


@idiom
class CacheByData(Model):
    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, _ = q.shape
        layer.ck.data[:b, 0:n] = k.transpose(1, 2)
        layer.cv[:b, 0:n].copy_(v.transpose(1, 2))
        k, v = (cache[:b].transpose(1, 2) for cache in (layer.ck, layer.cv))
        later = torch.arange(64, device=q.device)[None] > torch.arange(n, device=q.device)[:, None]
        mask = torch.zeros(n, 64, device=q.device).masked_fill(later, -math.inf)
        return (q @ k.transpose(2, 3) + mask).softmax(-1) @ v


@idiom
class ChecksItsNumbers(Model):
    def run(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any() or torch.isinf(x).any():
            raise ValueError("broken")
        assert torch.isfinite(x).all().item()
        return super().run(x)


@idiom
class WithoutGradients(Model):
    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        return super().run(x)

    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k)
        return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1, dtype=torch.float32).type_as(q), v)


@idiom
class FusedKernelWithAFallback(Model):
    def mix(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        try:
            from flash_attn import flash_attn_func
        except ImportError:
            return super().mix(layer, q, k, v)
        return flash_attn_func(q, k, v)


@idiom
class OtherTypes(Model):
    def __init__(self) -> None:
        super().__init__()
        self.layers.to(torch.bfloat16)
        self.stem = nn.Conv1d(WIDTH, WIDTH, 3, padding=1).half()

    def run(self, x: Tensor) -> Tensor:
        return super().run(x + self.stem(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("cls", IDIOMS.values(), ids=IDIOMS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_idiom_is_traced_to_its_end(cls: type[Model], device: str) -> None:
    with torch.device(device):
        module = cls()
    traced = ls.inspect(module, trace=True, inputs={"ids": TOKENS})
    assert [note for note in traced.notes if "traced" in note] == []
    assert {trace.status for trace in traced.traces} == {"executed"}
    layers = {trace.weight: trace.flow for trace in traced.traces if trace.weight.startswith("layers.")}
    assert {name: flow.part for name, flow in layers.items() if flow} == {
        name: ROLES[name.rpartition(".")[2]] for name in layers
    }
    assert len(layers) == 12


def test_those_are_many() -> None:
    assert len(IDIOMS) == 19


STOPS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a branch on a number": (lambda x: x * 2 if x.mean() > 0 else x, "a number that depends on the weights"),
    "a number": (lambda x: x * x.abs().max().item(), "a number that depends on the weights"),
    "numpy": (lambda x: torch.from_numpy(x.numpy()), "numpy"),
    "a kernel that is missing": (lambda x: __import__("flash_attn").run(x), "No module named 'flash_attn'"),
}


@pytest.mark.parametrize("name", STOPS)
def test_where_a_trace_must_stop_it_says_where(name: str) -> None:
    change, reason = STOPS[name]

    class Stops(Model):
        def run(self, x: Tensor) -> Tensor:
            return super().run(change(self.layers[1](self.layers[0](x))))

    traced = ls.inspect(Stops(), trace=True, inputs={"ids": TOKENS})
    (note,) = (note for note in traced.notes if "not traced to its end" in note)
    assert reason in note
    assert "test_idioms.py, line" in note
    reached = {trace.weight for trace in traced.traces if trace.status != "unexecuted"}
    assert reached == {"table", *(f"layers.0.{one}" for one in "qkvo"), "layers.1.up", "layers.1.down"}


@pytest.mark.parametrize("masked", ["float", "zeros", "bool"])
def test_a_mask_given_to_torchs_own_encoder_needs_no_numbers(masked: str) -> None:
    later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    mask = {
        "float": torch.zeros(LENGTH, LENGTH).masked_fill(later, -math.inf),
        "zeros": torch.zeros(LENGTH, LENGTH),
        "bool": later,
    }[masked]

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 50)
            self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 4, 80, batch_first=True), 2)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.head(self.layers(self.table(ids), mask=mask))

    traced = ls.inspect(Encoder(), trace=True, inputs={"ids": TOKENS, "mask": mask})
    assert {trace.status for trace in traced.traces} == {"executed"}
    assert len(traced.traces) == 8


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_a_mixer(cls: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 50)
            self.layer = cls(WIDTH, WIDTH, num_layers=2, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.layer(self.table(ids))[0])

    traced = ls.inspect(Recurrent(), trace=True, inputs={"ids": TOKENS})
    blocks = {trace.weight: trace.flow.block for trace in traced.traces if trace.flow}
    assert blocks == {
        "table": "embedding",
        "head": "head",
        **{f"layer.weight_{one}h_l{layer}": "mixer" for one in "ih" for layer in (0, 1)},
    }


def test_torch_is_afterwards_as_it_was() -> None:
    def answers() -> tuple[Any, ...]:
        return (
            torch.autocast.__init__,
            torch.is_autocast_enabled,
            torch.get_autocast_dtype,
            torch.cuda.current_device,
            transformer._detect_is_causal_mask,
            torch._C._jit_can_fuse_on_cpu(),
            torch._C._get_graph_executor_optimize(),
        )

    before = answers()
    ls.inspect(IDIOMS["AutocastOfItsOwnDevice"](), trace=True, inputs={"ids": TOKENS})
    assert answers() == before
    with pytest.raises(RuntimeError, match=r"meta|scalarType"):
        torch.autocast("meta")
    inside: list[tuple[Any, ...]] = []

    class Second(Model):
        def run(self, x: Tensor) -> Tensor:
            thread = threading.Thread(
                target=ls.inspect, args=(Model(),), kwargs={"trace": True, "inputs": {"ids": TOKENS}}
            )
            thread.start()
            thread.join()
            inside.append(answers())
            return super().run(x)

    ls.inspect(Second(), trace=True, inputs={"ids": TOKENS})
    assert len(inside) == 1
    assert answers() == before


def test_scripted_functions_that_torch_would_fuse_are_traced(tmp_path: Path) -> None:
    # As ChatGLM's modeling code sets torch up, for the whole process.
    script = tmp_path / "fused.py"
    script.write_text(
        f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "src")!r}]
import torch
torch._C._jit_set_profiling_mode(False)
torch._C._jit_set_profiling_executor(False)
torch._C._jit_override_can_fuse_on_cpu(True)
import lorascope as ls
from tests.tracing.test_idioms import IDIOMS, TOKENS
traced = ls.inspect(IDIOMS["Scripted"](), trace=True, inputs={{"ids": TOKENS}})
print({{trace.status for trace in traced.traces}}, torch._C._jit_can_fuse_on_cpu())
""",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "{'executed'} True\n", done.stderr
