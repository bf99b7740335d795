"""Modules and configurations that would loop or allocate without end while they are traced: each ends, and says why."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.sandbox.memory_bound import MemoryBound
from lorascope.sources.transformers.meta_model import map_module
from lorascope.tracing.calls.types import count_up, integers, ones
from lorascope.tracing.limits import Limits
from lorascope.tracing.record import meta_execution
from lorascope.tracing.record.recorder import record
from lorascope.tracing.traced_map import trace_roles
from tests.helpers.paths import ROOT
from tests.helpers.samples import TINY_LLAMA, fails

SMALL = Limits(seconds=10, waiting=10, operations=3_000, nodes=1_000, edges=20_000, known=2**26)


class Hostile(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    """Two matrices, with something between them."""

    def __init__(self, between: Callable[[Any], Any]) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self._between = between

    def forward(self, x: Any) -> Any:
        x = self.one(x)
        between = self._between(x)
        return self.two(x if between is None else between)


def traced(between: Callable[[Any], Any], bounds: Limits = SMALL) -> Any:
    module = Hostile(between)
    return trace_roles(module, map_module(module), inputs={"x": torch.ones(2, 4)}, limits=bounds)


# Loops.


def forever() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def add_forever(x: Any) -> Any:
    for _ in forever():
        x = x + 1


def weigh_forever(x: Any) -> Any:
    weight = nn.Parameter(torch.ones(4, 4))
    for _ in forever():
        x = (x @ weight) @ x.transpose(0, 1) @ x


def count_forever(x: Any) -> Any:
    for _ in forever():
        pass


def swallow_everything(x: Any) -> Any:
    for _ in forever():
        with contextlib.suppress(Exception):
            x = x + 1


def swallow_idly(x: Any) -> Any:
    for _ in forever():
        with contextlib.suppress(Exception):
            "".join(map(str, range(100)))


def sleep_long(x: Any) -> Any:
    time.sleep(10_000)


def keep_integers(x: Any) -> Any:
    kept = []
    for _ in forever():
        kept.append(torch.zeros(1 << 20, dtype=torch.long) + 1)


def join_forever(x: Any) -> Any:
    found = [x]
    for _ in forever():
        found.append(torch.cat(found[-50:]).sum(0, keepdim=True) * x.T[:1, :1])


ENDLESS = {
    "adds": (add_forever, "tensor operations"),
    "weighs": (weigh_forever, "more often than|tensor operations|seconds"),
    "counts": (count_forever, "seconds"),
    "swallows what is raised": (swallow_everything, "tensor operations"),
    "swallows what is raised between operations": (swallow_idly, "seconds"),
    "sleeps": (sleep_long, "seconds"),
    "keeps integers": (keep_integers, "GiB"),
    "joins": (join_forever, "tensor operations|more often than|seconds"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_a_forward_without_an_end_is_ended(name: str) -> None:
    between, said = ENDLESS[name]
    with pytest.raises(LorascopeError, match=said) as caught:
        traced(between)
    assert caught.value.faults[0].startswith("tracing was stopped: ")
    assert "inputs={" in caught.value.hint
    assert len(ENDLESS) == 8


def test_a_bound_on_operations_is_met_exactly() -> None:
    assert traced(lambda x: x + 1, Limits(operations=1_000)).traces
    with fails("more than 3 tensor operations"):
        traced(lambda x: x + 1, Limits(operations=3))
    with fails("more often than 2 times"):
        traced(lambda x: x + 1, Limits(nodes=2))
    with fails("0 GiB"):
        traced(lambda x: x + torch.arange(4), Limits(known=8))


@pytest.mark.slow
def test_a_loop_is_ended_in_another_thread_too() -> None:
    found: list[str] = []

    def run() -> None:
        try:
            traced(count_forever, Limits(seconds=60, waiting=1))
        except LorascopeError as error:
            found.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert len(found) == 1
    assert "more than 1 seconds" in found[0]


# Allocations.

HUGE = 10**12
ALLOCATIONS: dict[str, Callable[[Any], Any]] = {
    "zeros": lambda x: torch.zeros(HUGE),
    "ones on the CPU": lambda x: torch.ones(HUGE, device="cpu"),
    "empty": lambda x: torch.empty(HUGE, dtype=torch.long),
    "full": lambda x: torch.full((10**6, 10**6), 3),
    "arange": lambda x: torch.arange(HUGE),
    "arange of fractions": lambda x: torch.arange(0, 1, 1e-12),
    "linspace": lambda x: torch.linspace(0, 1, 10**10),
    "eye": lambda x: torch.eye(10**6),
    "random": lambda x: torch.rand(HUGE),
    "permutation": lambda x: torch.randperm(10**10),
    "strided": lambda x: torch.empty_strided((2,), (HUGE,)),
    "triangle": lambda x: torch.tril_indices(10**6, 10**6),
    "on the meta device": lambda x: torch.zeros(HUGE, device="meta"),
    "repeat": lambda x: torch.zeros(1).repeat(HUGE),
    "outer": lambda x: torch.arange(10**6)[:, None] * torch.arange(10**6)[None],
    "sum of an expanded": lambda x: torch.arange(1).expand(HUGE).sum(),
    "repeated by numbers": lambda x: torch.zeros(1).repeat_interleave(torch.tensor([10**11])),
    "count of bins": lambda x: torch.bincount(torch.tensor([10**11])),
    "one hot": lambda x: nn.functional.one_hot(torch.arange(10**6), 10**6),
    "product": lambda x: torch.ones(4000, 4000) @ torch.ones(4000, 4000),
    "decomposition": lambda x: torch.linalg.svd(torch.ones(4000, 4000)),
    "pool": lambda x: nn.functional.avg_pool2d(torch.ones(1, 1, 4000, 4000), 2001, stride=1),
    "joined": lambda x: torch.cat([torch.zeros(1 << 23)] * 4000),
    "padded": lambda x: nn.functional.pad(torch.zeros(1), (0, HUGE)),
    "resized": lambda x: torch.zeros(1).resize_(HUGE),
    "a module": lambda x: nn.Linear(10**6, 10**6),
    "new": lambda x: x.new_zeros(HUGE),
    "new of integers": lambda x: torch.arange(3).new_full((HUGE,), 3),
    "which are not zero": lambda x: x.expand(10**10, 2, 4).nonzero(),
    "a list": lambda x: [0] * 10**12,
    "bytes": lambda x: bytearray(10**14),
    "chosen": lambda x: x.expand(10**9, 2, 4).argmax(-1),
}

_BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
sys.path[:0] = {path!r}
import architectures
architectures.mend_torchvision()
import tests.tracing.test_trace_limits as it
from tests.helpers.peak_memory import peak_memory
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)
names = list(it.ALLOCATIONS)
bounds = it.Limits(seconds=60, waiting=120)
for name in names:
    try:
        found = it.traced(lambda x: [None for _ in [it.ALLOCATIONS[name](x)]][0], bounds)
        kind = "map"
    except it.LorascopeError as error:
        kind = "error"
    print(name, kind, sep="\\t")
peak = peak_memory() / 2**30
print("done", len(names), round(peak, 2), sep="\\t")
"""


@pytest.mark.slow
def test_allocations_take_neither_memory_nor_time() -> None:
    code = _BOUNDED.format(path=[*sys.path, str(ROOT)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500, check=False)
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert done.returncode == 0, done.stderr[-2000:]
    assert lines[-1][:2] == ["done", "32"]
    assert [name for name, _ in lines[:-1]] == list(ALLOCATIONS)
    assert {kind for _, kind in lines[:-1]} == {"map"}  # the operation is unknown or the call ends early
    assert float(lines[-1][2]) < 3  # GiB


def test_numbers_that_are_kept_are_computed_as_ever() -> None:
    seen: list[Any] = []

    def between(x: Any) -> None:
        seen.append((torch.arange(5) * 2).tolist())
        seen.append(torch.eye(3).tolist())
        seen.append(torch.tensor([1, 2]).repeat_interleave(torch.tensor([2, 1])).tolist())
        seen.append(torch.bincount(torch.tensor([0, 2, 2])).tolist())
        seen.append(torch.arange(6).view(2, 3)[torch.tensor([True, False])].tolist())
        seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).tolist())

    assert all(trace.status == "executed" for trace in traced(between).traces)
    assert seen == [
        [0, 2, 4, 6, 8],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [1, 1, 2],
        [1, 0, 2],
        [[0, 1, 2]],
        [[2.0, 2.0], [2.0, 2.0]],
    ]


def test_buffers_of_a_billion_positions_are_not_made() -> None:
    for buffer in (
        torch.empty(10**10, dtype=torch.long, device="meta"),
        torch.empty(10**6, 10**6, dtype=torch.bool, device="meta"),
        torch.zeros(1, dtype=torch.long).expand(10**10),
    ):
        assert meta_execution.stand_in_of_buffer("position_ids", buffer).is_meta


# Inputs that are made up.


def test_made_up_numbers_take_no_memory_and_have_a_bound() -> None:
    made = ones(1, 3, 20_000, 20_000)
    assert made.untyped_storage().nbytes() == 4
    assert made.shape == (1, 3, 20_000, 20_000)
    for too_many in (lambda: ones(10**6, 10**6), lambda: integers(10**6, 10**6), lambda: count_up(10**9)):
        with fails("tracing was stopped: an input of", "inputs={"):
            too_many()  # type: ignore[no-untyped-call]


def vision(**fields: Any) -> dict[str, Any]:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {**small, "image_size": 28, "patch_size": 14, **fields}


def llava(**fields: Any) -> dict[str, Any]:
    return {
        "model_type": "llava",
        "text_config": TINY_LLAMA,
        "vision_config": {"model_type": "clip_vision_model", **vision(**fields)},
    }


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "images of 10^9 pixels a side": llava(image_size=10**9),
    "images of 10^6 pixels a side": llava(image_size=10**6, patch_size=10**5),
    "10^9 channels": llava(num_channels=10**9),
    "patches of 10^9": llava(patch_size=10**9),
    "10^9 positions": {**TINY_LLAMA, "max_position_embeddings": 10**9},
    "a table of 10^9 positions": {"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 10**9},
    "10^12 tokens": {**TINY_LLAMA, "vocab_size": 10**12},
    "windows of 10^9": {
        "model_type": "mistral",
        **{k: v for k, v in TINY_LLAMA.items() if k != "model_type"},
        "sliding_window": 10**9,
    },
    "buckets of 10^9": {
        "model_type": "t5",
        "num_layers": 1,
        "d_model": 16,
        "d_ff": 32,
        "num_heads": 2,
        "d_kv": 8,
        "relative_attention_num_buckets": 10**6,
    },
    "sounds of 10^9 frames": {
        "model_type": "qwen2_audio",
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        "audio_config": {
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 10**9,
        },
    },
    "a sequence state of 10^9": {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 10**9},
    "convolutions of 10^9": {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "conv_kernel": 10**9},
}

_CONFIGURED = """
import contextlib, io, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (400, 400))
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
sys.path[:0] = {path!r}
import architectures
architectures.mend_torchvision()
from lorascope.cli.main import main
from tests.helpers.peak_memory import peak_memory
for folder in {folders!r}:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(["inspect", folder, "--trace"])
    print(folder, code, "Traceback" in error.getvalue(), sep="\\t")
print("peak", round(peak_memory() / 2**30, 2), sep="\\t")
"""


@pytest.mark.slow
def test_configurations_that_ask_for_too_much_end(tmp_path: Path) -> None:
    folders = []
    for name, config in CONFIGURATIONS.items():
        folder = tmp_path / name.replace(" ", "-").replace("^", "")
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        folders.append(str(folder))
    code = _CONFIGURED.format(path=[*sys.path, str(ROOT)], folders=folders)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert [line[0] for line in lines] == [*folders, "peak"]
    assert len(folders) == 12
    assert {code for _, code, _ in lines[:-1]} <= {"0", "2"}
    assert {traceback for _, _, traceback in lines[:-1]} == {"False"}
    assert float(lines[-1][1]) < 6


# Nothing stays changed.


def state(module: nn.Module) -> tuple[object, ...]:
    return (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.distributions.Distribution._validate_args,
        [part.training for part in module.modules()],
        [list(part._buffers) for part in module.modules()],
        torch.ones(1).device.type,
    )


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecursionError, StopIteration]
)
def test_whatever_a_forward_raises(kind: type[BaseException]) -> None:
    def between(x: Any) -> None:
        raise kind

    module = Hostile(between)
    module.train()
    before = state(module)
    if kind is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            record(module, "forward", {"x": torch.ones(2, 4)})
    else:
        graph = record(module, "forward", {"x": torch.ones(2, 4)})
        assert graph.failure.startswith(f"{kind.__name__}: ")
        assert [node.name for node in graph.nodes if node.kind == "weight"] == ["one.weight"]
    assert state(module) == before


def test_a_bound_that_is_met_leaves_nothing_changed() -> None:
    import signal

    module = Hostile(lambda x: x + 1)
    module.train()
    before = state(module), signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with fails("tracing was stopped"):
        trace_roles(module, map_module(module), inputs={"x": torch.ones(2, 4)}, limits=Limits(operations=2))
    assert (state(module), signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == before


def test_progress_that_raises_is_the_callers_own() -> None:
    def progress(done: int, of: int) -> None:
        raise KeyError("mine")

    module = Hostile(lambda x: x)
    before = state(module)
    with pytest.raises(KeyError, match="mine"):
        ls.inspect(module, trace=True, inputs={"x": torch.ones(2, 4)}, progress=progress)
    assert state(module) == before


def test_memory_is_bounded_while_a_forward_runs() -> None:
    if MemoryBound().room is None:
        pytest.skip("this system does not tell how much memory is free")
    import resource

    seen: list[tuple[int, int]] = []
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def look(x: Any) -> None:
        seen.append(resource.getrlimit(resource.RLIMIT_DATA))

    traced(look)
    assert seen[0][0] != before[0] or before[0] != resource.RLIM_INFINITY
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
