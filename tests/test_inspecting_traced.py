"""Which sources can be traced, and what is traced then; why others cannot, all at once, and what to do instead."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import lorascope as ls
from lorascope.cli.main import main
from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.plans.files import save_map, save_plan
from lorascope.sources.builtin import builtin_models
from lorascope.tracing import traced_map
from tests.helpers.samples import TINY_LLAMA, fails, sample

LLAMA = {key: value for key, value in TINY_LLAMA.items() if key != "model_type"}


class Home(torch.nn.Module):
    """A model of nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(4, 6)
        self.two = torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, *rest: torch.Tensor, scale: float = 1.0, **more: Any) -> torch.Tensor:
        out: torch.Tensor = x + self.two(torch.relu(self.one(x))) * scale
        return out


class Strict(Home):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x) * mask


Traced = list[tuple[Any, ModelMap, Mapping[str, Any] | None]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Traced:
    """What would have been traced."""
    calls: Traced = []

    def trace_roles(
        module: torch.nn.Module,
        named: ModelMap,
        *,
        inputs: Mapping[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ModelMap:
        calls.append((module, named, inputs))
        for done in range(3):
            if progress is not None:
                progress(done + 1, 3)
        return named

    monkeypatch.setattr(traced_map, "trace_roles", trace_roles)
    return calls


def written(path: Path, **fields: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(TINY_LLAMA | fields), encoding="utf-8")
    return path


# What can be traced.


def test_every_form_of_a_source_is_traced(tmp_path: Path, seen: Traced) -> None:
    made = written(tmp_path / "model")
    config = transformers.LlamaConfig(**LLAMA)
    module = transformers.LlamaForCausalLM(config)
    for source in (made, str(made), made / "config.json", config, module):
        assert inspect(source, trace=True).weights == inspect(source).weights
    assert [type(module).__name__ for module, _, _ in seen] == ["LlamaForCausalLM"] * 5
    assert [named.source for _, named, _ in seen] == ["config"] * 4 + ["module"]
    assert seen[4][0] is module
    on_meta = [all(one.is_meta for one in built.parameters()) for built, _, _ in seen]
    assert on_meta == [True] * 4 + [False]
    assert [inputs for _, _, inputs in seen] == [None] * 5


def test_weights_beside_a_configuration_do_not_matter(tmp_path: Path, seen: Traced) -> None:
    config = transformers.LlamaConfig(**LLAMA)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert inspect(tmp_path).source == "headers"
    assert inspect(tmp_path, trace=True).source == "config"
    assert inspect(tmp_path, trace=True).weights == inspect(tmp_path).weights


@pytest.mark.parametrize(
    ("name", "head"), [("gpt2", ""), ("bert", ""), ("bert", "sequence-classification"), ("t5", "")]
)
def test_a_model_type_is_its_default_configuration(name: str, head: str, seen: Traced) -> None:
    found, recorded = inspect(name, head=head, trace=True), sample(name, head)
    assert (found.weights, found.head, found.model) == (recorded.weights, recorded.head, name)
    assert (found.source, recorded.source) == ("default config", "built-in")
    ((module, _, _),) = seen
    assert all(one.is_meta for one in module.parameters())


def test_a_home_made_module_with_inputs(seen: Traced) -> None:
    home = Home()
    inputs = {"x": torch.ones(2, 4)}
    assert inspect(home, trace=True, inputs=inputs).weights == inspect(home).weights
    assert seen[0][0] is home
    assert seen[0][2] is inputs


def test_inputs_of_a_transformers_model_may_be_given(seen: Traced) -> None:
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    inspect(transformers.LlamaConfig(**LLAMA), trace=True, inputs=inputs)
    assert seen[0][2] is inputs


def test_progress_is_the_tracers(seen: Traced) -> None:
    told: list[tuple[int, int]] = []
    inspect(transformers.LlamaConfig(**LLAMA), trace=True, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


CODE = """
import torch, transformers

class MineConfig(transformers.PretrainedConfig):
    model_type = "mine"

class Mine(transformers.PreTrainedModel):
    config_class = MineConfig
    def __init__(self, config):
        super().__init__(config)
        self.alpha = torch.nn.Embedding(32, 8)
        self.beta = torch.nn.Linear(8, 32, bias=False)
        self.post_init()
    def forward(self, input_ids):
        return self.beta(self.alpha(input_ids))
"""


def test_trusted_code_is_traced_and_untrusted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Traced
) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    auto = {"AutoConfig": "code.MineConfig", "AutoModelForCausalLM": "code.Mine"}
    made = written(tmp_path / "model", model_type="mine", architectures=["Mine"], auto_map=auto)
    (made / "code.py").write_text(CODE, encoding="utf-8")
    with fails('model_type "mine" needs code that comes with the model', "which is not run", "--trust-remote-code"):
        inspect(made, trace=True)
    assert seen == []
    assert not (tmp_path / "modules").exists()
    found = inspect(made, trace=True, trust_remote_code=True)
    assert [weight.name for weight in found.weights] == ["alpha", "beta"]
    assert type(seen[0][0]).__name__ == "Mine"


# What cannot.


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_map(sample("gpt2"), "map.json")
    save_plan(plan(sample("gpt2")), "plan")
    Path("m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    Path("m.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("map.json", "a saved map or plan has no code to trace"),
        ("plan/plan.json", "a saved map or plan has no code to trace"),
        ("m.gguf", "a GGUF file has no code to trace"),
        (sample("gpt2"), "a saved map or plan has no code to trace"),
        ("m.safetensors", "a single weights file cannot be read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_has_no_code(source: Any, said: str, files: Path, seen: Traced) -> None:
    with fails(said, "→", "lorascope inspect "):
        inspect(source, trace=True)
    assert seen == []


def test_headers_are_not_traced(seen: Traced) -> None:
    with fails("headers have no code to trace", "--source config"):
        inspect("someone/model", read="headers", trace=True)


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (
            Home(),
            None,
            "Home has no configuration to make up inputs from\n  → Give the keyword arguments of one call of "
            "forward(x, *rest, scale=1.0, **more): inputs={'x': …}.",
        ),
        (Strict(), None, "call of forward(x, mask): inputs={'x': …, 'mask': …}."),
        (Strict(), {"x": 1}, "Strict.forward cannot be called with the inputs: missing a required argument: 'mask'"),
        (Strict(), {"y": 1}, "Strict.forward cannot be called with the inputs: missing a required argument: 'x'"),
        (Strict(), {"x": 1, "mask": 1, "z": 1}, "cannot be called with the inputs: got an unexpected keyword argument"),
        (Home(), [1], "inputs must map argument names to values, not be a list"),
        (Home(), {1: 2}, "inputs must map argument names to values"),
        (torch.nn.Module(), None, "Module has no configuration"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_how_a_module_is_called(module: torch.nn.Module, inputs: Any, said: str, seen: Traced) -> None:
    with fails(said):
        inspect(module, trace=True, inputs=inputs)
    assert seen == []


def test_inputs_that_a_built_model_does_not_take(seen: Traced) -> None:
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16, architectures=["GPT2Model"])
    with fails("inputs must map argument names to values, not be a str"):
        inspect(config, trace=True, inputs="hello")  # type: ignore[arg-type]


def test_all_faults_at_once(files: Path, seen: Traced) -> None:
    with fails(
        *(
            "4 faults",
            "unknown head 'foot'",
            "trust_remote_code has no effect with read=",
            "headers have no code to trace",
        ),
        *("a GGUF file has no code", "The heads are", "Use read=", "--source config", "--trace"),
    ):
        inspect("m.gguf", head="foot", read="headers", trust_remote_code=True, trace=True)
    with fails("2 faults", "cannot inspect an int", "inputs have no effect without tracing", "Pass trace=True too."):
        inspect(5, inputs={})
    with fails("2 faults", "Home has no configuration", "unknown head 'foot'"):
        inspect(Home(), head="foot", trace=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dbrx", "transformers' default configuration of dbrx: transformers cannot build DbrxForCausalLM"),
        ("gemma4_assistant", "transformers' default configuration of gemma4_assistant: "),
    ],
)
def test_a_default_that_cannot_be_built(name: str, said: str, seen: Traced) -> None:
    with fails(said, "Give a released model of this type"):
        inspect(name, trace=True)


@pytest.mark.slow
def test_all_but_23_defaults_can_be_built(seen: Traced) -> None:
    """What docs/sources.md says; and what is built is what the built-in models shows."""
    refused = []
    for name in builtin_models():
        try:
            traced = inspect(name, trace=True)
            # The default shares all keys and values; the built-in model shows the layers with their own, too.
            assert traced.weights == sample(name).weights or name == "gemma4_unified_assistant", name
        except LorascopeError as error:
            assert str(error).startswith(f"transformers' default configuration of {name}: "), name
            refused.append(name)
        seen.clear()
    assert len(builtin_models()) == 339
    assert len(refused) == 23
    assert {"dbrx", "esm"} <= set(refused)


@pytest.mark.parametrize("name", ["lama", "", "nowhere/config.json", "../nowhere"])
def test_what_is_no_source_is_told_as_ever(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = []
    for trace in (False, True):
        with fails("→") as caught:
            inspect(name, trace=trace)
        told.append(str(caught.value))
    assert told[0] == told[1]


# The command line.


@pytest.mark.parametrize("command", [["inspect"], ["plan"], ["check"]], ids=" ".join)
def test_every_command_traces(command: list[str], tmp_path: Path, seen: Traced) -> None:
    made = written(tmp_path / "model")
    save_plan(plan(ls.inspect(made)), tmp_path / "adapter")
    more = [str(tmp_path / "adapter")] if command == ["check"] else []
    assert main([*command, str(made), *more, "--trace"]) == 0
    assert len(seen) == 1


def test_a_plan_of_a_traced_model_type_names_no_checkpoint(tmp_path: Path, seen: Traced) -> None:
    assert main(["plan", "gpt2", "--trace", "-o", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] is None


def test_progress_is_shown_on_a_terminal_alone(
    tmp_path: Path, seen: Traced, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = str(written(tmp_path / "model"))
    assert main(["inspect", made, "--trace"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["inspect", made, "--trace"]) == 0
    lines = capsys.readouterr().err.split("\r\x1b[K")
    assert lines == ["", f"building {made}", *(f"tracing {made}: {done} of 3" for done in (1, 2, 3)), ""]


def test_it_can_be_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> ModelMap:
        raise KeyboardInterrupt

    monkeypatch.setattr(traced_map, "trace_roles", interrupted)
    assert main(["inspect", str(written(tmp_path / "model")), "--trace"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_mistake_is_two(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "m.gguf", "--trace", "--source", "headers"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lorascope inspect: 2 faults\n")


# All of it, with nothing in place of the tracer.


class Layer(torch.nn.Module):
    """An attention and a feed-forward network of which no name tells anything."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (torch.nn.Linear(16, 16) for _ in range(4))
        self.e, self.f = torch.nn.Linear(16, 40), torch.nn.Linear(40, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, o, q, v = self.a, self.b, self.c, self.d
        heads = (one(x).unflatten(-1, (4, 4)).transpose(1, 2) for one in (q, k, v))
        x = x + o(torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.f(torch.relu(self.e(x)))  # type: ignore[no-any-return]


class Nameless(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g = torch.nn.Embedding(50, 16)
        self.h = torch.nn.Sequential(*(Layer() for _ in range(3)))
        self.i = torch.nn.Linear(16, 50, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.i(self.h(self.g(tokens)))  # type: ignore[no-any-return]


INPUTS = {"tokens": torch.arange(11)[None]}


def test_a_nameless_model_is_planned_by_role(tmp_path: Path) -> None:
    module = Nameless()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with fails("selects nothing"):
        plan(inspect(module), "attention.q,v=8")
    model = inspect(module, trace=True, inputs=INPUTS)
    parts = {weight.name: weight.role.part for weight in model.weights if weight.role.block == "attention"}
    assert parts == {f"h.{n}.{name}": part for n in range(3) for name, part in zip("abcd", "koqv", strict=True)}
    made = ls.plan(model, "attention.q,v=8", "ffn.down=4")
    assert [target.weight.name for target in made.targets] == [f"h.{n}.{name}" for n in range(3) for name in "cdf"]
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    ls.save_plan(made, tmp_path)
    assert ls.load_plan(tmp_path) == made
    assert ls.inspect(tmp_path / "plan.json") == model
    assert [one.code for one in ls.check(model, tmp_path).findings] == ["newer-peft-asked"]  # of any module
    proof = ls.prove(made, module)
    assert (proof.exact, proof.weights, proof.trainable) == (True, 9, made.resolution.trainable)


def test_names_and_dataflow_agree_on_a_llama(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = str(written(tmp_path / "model"))
    assert main(["inspect", made, "--trace", "-o", str(tmp_path / "map.json")]) == 0
    summary = "traced 16 weights: 16 confirmed, 0 by dataflow only, 0 disagree, 0 ambiguous, 0 not executed\n"
    assert summary in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "map.json")]) == 0
    assert summary in capsys.readouterr().out
    assert main(["plan", made, "--trace", "--prove", "-o", str(tmp_path / "plan")]) == 0
    assert "adapts 4 modules" in capsys.readouterr().err
    assert {trace.confidence for trace in ls.load_plan(tmp_path / "plan").model.traces} == {"high"}


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(LorascopeError, match="torch is not installed") as caught:
        inspect("llama", trace=True)
    assert "pip install 'lorascope[torch]'" in str(caught.value)
