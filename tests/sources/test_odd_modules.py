"""Odd Python objects as sources: each is a map, or an error that says what it is and what to give instead."""

from __future__ import annotations

import contextlib
import random
import sys
import time
import types
import unittest.mock
from collections import Counter
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.sources.modules import module_tree
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers.samples import TINY_LLAMA, fails

LLAMA = {key: value for key, value in TINY_LLAMA.items() if key != "model_type"}


def llama() -> Any:
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))


def linear() -> Any:
    return nn.Linear(4, 4)


def registered(module: Any, registry: str, name: Any, value: Any) -> Any:
    """The module with something in its registry that no attribute would put there."""
    getattr(module, registry)[name] = value
    return module


def adapted(**options: Any) -> Any:
    return peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"]), **options)


# What is no model.


class NoPath:
    def __fspath__(self) -> str:
        raise OSError("gone")


class NumberPath:
    def __fspath__(self) -> Any:
        return 3


class Raises(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


def made_by_a_metaclass() -> Any:
    return Raises("Odd", (), {})


def blank(cls: Any) -> Any:
    return cls.__new__(cls)


NO_SOURCES: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "cannot inspect a NoneType"),
    "a number": (lambda: 5, "cannot inspect an int"),
    "a list": (lambda: ["llama"], "cannot inspect a list"),
    "bytes": (lambda: b"llama", "os.fsdecode"),
    "an object": (object, "cannot inspect an object"),
    "a function": (lambda: len, "cannot inspect"),
    "a Python module": (lambda: sys, "cannot inspect a module"),
    "a generator": (lambda: (one for one in "ab"), "cannot inspect a generator"),
    "a tensor": (lambda: torch.ones(2), "a tensor, not a model"),
    "a state": (lambda: nn.Linear(2, 2).state_dict(), "cannot inspect an? \\w+ of tensors.*folder"),
    "a dictionary": (lambda: {"model_type": "llama"}, "AutoConfig.for_model"),
    "a mock": (unittest.mock.MagicMock, "cannot inspect a MagicMock"),
    "a mock of a module": (lambda: unittest.mock.MagicMock(spec=nn.Module), "cannot inspect a MagicMock"),
    "a path that raises": (NoPath, "a NoPath gives no path: OSError"),
    "a path that is a number": (NumberPath, "a NumberPath gives no path: TypeError"),
    "a class of models": (lambda: transformers.LlamaForCausalLM, "is a class, not a model.*Give an instance"),
    "a class of configurations": (
        lambda: transformers.LlamaConfig,
        r"is a class, not a configuration.*LlamaConfig\(\)",
    ),
    "another class": (lambda: int, "int is a class, and no source"),
    "a class whose metaclass raises": (made_by_a_metaclass, "Odd is a class, and no source"),
    "a namespace": (lambda: types.SimpleNamespace(model_type="llama"), "cannot inspect a SimpleNamespace"),
    "a tokenizer": (lambda: blank(transformers.PreTrainedTokenizerFast), "a tokenizer, which has no weights"),
    "a pipeline": (lambda: blank(transformers.TextGenerationPipeline), r"a pipeline.*inspect\(pipeline.model\)"),
    "a trainer": (lambda: blank(transformers.Trainer), "a trainer"),
    "an adapter's configuration": (peft.LoraConfig, "of an adapter, not of a model"),
    "a plan": (lambda: ls.plan(ls.inspect("llama")), "plan.model"),
    "a PeftModel": (adapted, r"a PeftModel: PEFT has wrapped it already.*model.unload\(\).*lorascope check"),
    "a mixed one": (lambda: adapted(mixed=True), "a PeftMixedModel: PEFT has wrapped it already"),
    "layers of PEFT": (
        lambda: adapted().get_base_model(),
        r"has layers of PEFT already: model.layers.0.self_attn.q_proj.*unload\(\)",
    ),
    "a TorchScript": (lambda: torch.jit.script(nn.Sequential(linear())), "compiled by TorchScript"),
}

VERBS: dict[str, Callable[[Any], Any]] = {
    "inspect": ls.inspect,
    "traced": lambda source: ls.inspect(source, trace=True),
    "traced with inputs": lambda source: ls.inspect(source, trace=True, inputs={"input": torch.ones(2, 4)}),
    "list_trainable_modules": ls.list_trainable_modules,
    "create_attention_lora_config": lambda source: ls.create_attention_lora_config(model=source),
}
OF_MAPS: dict[str, Callable[[Any], Any]] = {
    "plan": ls.plan,
    "verify": lambda source: ls.verify(source, {"target_modules": ["q_proj"]}),
    "check": lambda source: ls.check(source, "q_proj"),
    "recommend": lambda source: ls.recommend(source, "style"),
    "compare": ls.compare,
    "save_map": lambda source: ls.save_map(source, "nowhere"),
    "training_memory": lambda source: ls.training_memory(source, ls.Training()),
    "save_plan": lambda source: ls.save_plan(source, "nowhere"),
    "prove": lambda source: ls.prove(source, nn.Linear(2, 2)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NO_SOURCES)
def test_what_is_no_model_is_named(name: str) -> None:
    make, said = NO_SOURCES[name]
    source = make()
    for verb_name, verb in VERBS.items():
        if source is None and verb_name == "create_attention_lora_config":
            continue  # which has names for any model
        with pytest.raises(LorascopeError) as caught:
            verb(source)
        assert _matches(said, str(caught.value)), str(caught.value)


def _matches(said: str, text: str) -> bool:
    import re

    return re.search(said, text, re.DOTALL) is not None


@pytest.mark.parametrize("verb", OF_MAPS)
def test_what_is_no_map_or_plan_is_named(verb: str) -> None:
    wanted = "a plan" if verb in ("training_memory", "save_plan", "prove") else "the map of a model"
    for source in (None, 5, "llama", nn.Linear(2, 2), unittest.mock.MagicMock(), transformers.LlamaForCausalLM):
        with fails(f"{verb} takes {wanted}, not", "inspect(SOURCE)"):
            OF_MAPS[verb](source)
    assert len(NO_SOURCES) == 29
    assert len(OF_MAPS) == 9


def test_what_prove_cannot_run() -> None:
    plan = ls.plan(ls.inspect(llama()))
    for module, said in (
        (None, "cannot inspect a NoneType"),
        (llama().config, "on a module"),
        (adapted(), "wrapped it already"),
    ):
        with fails(said):
            ls.prove(plan, module)


# What is a model.


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel])
def test_wrappers_of_a_whole_model_are_looked_into(wrap: Callable[[Any], Any]) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    expected, found = ls.inspect(model), ls.inspect(wrap(model))
    assert (found.weights, found.head, found.architecture) == (expected.weights, "causal-lm", "LlamaForCausalLM")
    key = "_orig_mod" if wrap is torch.compile else "module"
    assert [note for note in found.notes if f"give PEFT that, as model.{key}" in note] == list(found.notes)
    plan = ls.plan(found)
    assert ls.prove(plan, wrap(llama())).exact


def test_what_unload_leaves_is_a_model() -> None:
    assert ls.inspect(adapted().unload()).weights == ls.inspect(llama()).weights


def test_cycles_and_shared_modules_are_walked_as_torch_does() -> None:
    one = nn.Sequential(linear())
    registered(one, "_modules", "me", one)
    two = nn.Sequential(nn.Sequential(linear()))
    registered(two[0], "_modules", "up", two)
    shared = linear()
    three = nn.ModuleDict({"a": shared, "b": shared, "c": nn.ModuleList([shared, linear()])})
    for module in (one, two, three):
        found = map_module(module)
        assert [one.name for one in found.modules] == [name for name, _ in module.named_modules() if name]
        assert found.dimensions.parameters == sum(parameter.numel() for parameter in module.parameters())
    names = ("a.weight", "b.weight", "c.0.weight"), ("a.bias", "b.bias", "c.0.bias")
    assert map_module(three).ties == names


class Trap(nn.Sequential):  # type: ignore[misc]
    """Raises whatever it likes when it is asked for what is not there."""

    kind: type[BaseException] = ValueError

    def __getattr__(self, name: str) -> Any:
        raise self.kind(name)


class Exits(Trap):
    kind = SystemExit


class Recurses(Trap):
    kind = RecursionError


class Mocks(nn.Sequential):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        return unittest.mock.MagicMock()


def holding(cls: Any) -> Any:
    """An instance with one linear layer, put there without its help."""
    return registered(cls(), "_modules", "0", linear())


class Properties(nn.Sequential):  # type: ignore[misc]
    @property
    def config(self) -> Any:
        raise OSError("no configuration")

    @property
    def get_input_embeddings(self) -> Any:
        raise KeyError("no embeddings")

    def get_output_embeddings(self) -> Any:
        raise SystemExit(1)

    @property
    def forward(self) -> Any:
        raise RuntimeError("no forward")


class Liar(nn.Sequential):  # type: ignore[misc]
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not equal")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Endless(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def named_modules(self, *_: Any, **__: Any) -> Any:
        while True:
            yield "x", self

    named_parameters = parameters = modules = children = named_children = named_buffers = named_modules
    __iter__ = named_modules


class Runs(nn.Sequential):  # type: ignore[misc]
    """Its code is not run without tracing."""

    def forward(self, *_: Any) -> Any:
        raise AssertionError("called")

    __call__ = train = eval = to = state_dict = apply = forward


def with_attribute(name: str, value: Any) -> Any:
    module = nn.Sequential(linear())
    object.__setattr__(module, name, value)
    return module


ONE_WEIGHT: dict[str, Callable[[], Any]] = {
    "a trap": lambda: holding(Trap),
    "a trap that exits": lambda: holding(Exits),
    "a trap that recurses": lambda: holding(Recurses),
    "mocks of everything": lambda: holding(Mocks),
    "properties that raise": lambda: holding(Properties),
    "a liar": lambda: holding(Liar),
    "endless walks": Endless,
    "code that is not run": lambda: holding(Runs),
    "a configuration that is a dictionary": lambda: with_attribute("config", {"model_type": "llama"}),
    "a configuration that is a mock": lambda: with_attribute("config", unittest.mock.MagicMock()),
    "a configuration that is None": lambda: with_attribute("config", None),
    "a model type with a line break": lambda: with_attribute("config", types.SimpleNamespace(model_type="a\nb")),
    "a class with a line break": lambda: type("A\nB\x1b[31m", (nn.Sequential,), {})(linear()),
    "a class of a line break inside": lambda: nn.Sequential(type("A\nB", (nn.Linear,), {})(2, 2)),
    "a class with a long name": lambda: type("A" * 10_000, (nn.Sequential,), {})(linear()),
    "a name with a space": lambda: registered(nn.Sequential(), "_modules", "a b", linear()),
    "a name of another alphabet": lambda: registered(nn.Sequential(), "_modules", "é", linear()),
    "a weight that is None": lambda: nn.Sequential(registered(linear(), "_parameters", "weight", None), linear()),
    "complex numbers": lambda: nn.Sequential(nn.Linear(3, 3, dtype=torch.complex64)),
    "no numbers": lambda: nn.Sequential(nn.Linear(3, 3, device="meta")),
    "a sparse matrix": lambda: nn.Sequential(
        registered(linear(), "_parameters", "weight", nn.Parameter(torch.eye(4).to_sparse()))
    ),
    "groups that are text": lambda: nn.Sequential(_with(linear(), "groups", "x")),
    "a flag that is a tensor": lambda: with_attribute("is_transposed", torch.ones(3)),
    "TorchScript inside": lambda: nn.Sequential(torch.jit.script(linear()), linear()),
    "eight hundred levels": lambda: nested(800),
    "a module of torch.fx": lambda: torch.fx.symbolic_trace(nn.Sequential(linear())),
}


def _with(module: Any, name: str, value: Any) -> Any:
    object.__setattr__(module, name, value)
    return module


def nested(levels: int) -> Any:
    module: Any = linear()
    for _ in range(levels):
        module = registered(nn.Module(), "_modules", "m", module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ONE_WEIGHT)
def test_odd_models_have_their_map(name: str) -> None:
    module = ONE_WEIGHT[name]()
    found = ls.inspect(module)
    assert [weight.kind for weight in found.weights] == ["linear"]
    assert ls.verify(found, {"target_modules": "all-linear"}).adapted or found.output_embeddings
    assert "\n" not in found.architecture
    assert len(found.architecture) <= 200
    for verb in VERBS.values():
        with contextlib.suppress(LorascopeError):
            verb(module)
    assert len(ONE_WEIGHT) == 26


# What is a module that PEFT could not walk.


def _named(registry: str, name: Any, value: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: registered(nn.Sequential(), registry, name, value())


NO_TREES: dict[str, tuple[Callable[[], Any], str]] = {
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(3), linear(), nn.LazyLinear(3)),
        "lazy modules whose parameters have no shape yet: 0.weight, 0.bias, 2.weight.*Call the model once",
    ),
    "a number as a module": (lambda: registered(nn.Sequential(), "_modules", "x", 5), r"are none: x \(a int\)"),
    "a mock as a module": (
        lambda: registered(nn.Sequential(), "_modules", "x", unittest.mock.MagicMock()),
        r"x \(a MagicMock\)",
    ),
    "a class as a module": (lambda: registered(nn.Sequential(), "_modules", "x", nn.Linear), r"x \(a type\)"),
    "a number as a parameter": (lambda: registered(linear(), "_parameters", "weight", 5), r"weight \(a int\)"),
    "nested tensors": (
        lambda: registered(
            linear(),
            "_parameters",
            "weight",
            nn.Parameter(torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])),
        ),
        "no fixed shape: weight",
    ),
    "no __init__": (lambda: type("Bare", (nn.Module,), {"__init__": lambda self: None})(), "__init__ does not call"),
    "another registry": (lambda: _with(nn.Sequential(), "_modules", types.MappingProxyType({})), "not a dictionary"),
    "five thousand levels": (lambda: nested(5_000), "nested more than 900 deep"),
    "doubled sixty times": (lambda: doubled(60), "shared modules under more than 300000 names"),
    **{
        f"the name {name!r:.20}": (
            _named("_modules", name, linear),
            "names of modules that no attribute has",
        )
        for name in ("a.b", "", "a\nb", "\x1b[31m", "\u202e", "a\udc80", "a" * 5_000, 3, None, ("a",))
    },
    **{
        f"the parameter {name!r:.20}": (
            _named("_parameters", name, lambda: nn.Parameter(torch.ones(2, 2))),
            "names of parameters that no attribute has",
        )
        for name in ("a.b", "", "a\nb", 3)
    },
}


def doubled(times: int) -> Any:
    module: Any = linear()
    for _ in range(times):
        module = registered(registered(nn.Module(), "_modules", "a", module), "_modules", "b", module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NO_TREES)
def test_what_no_map_can_be_made_of_is_said(name: str) -> None:
    make, said = NO_TREES[name]
    module = make()
    with pytest.raises(LorascopeError) as caught:
        ls.inspect(module)
    assert _matches(said, str(caught.value)), str(caught.value)
    assert caught.value.hint
    assert len(str(caught.value)) < 1_000
    assert len(NO_TREES) == 24


def test_all_faults_of_a_tree_at_once() -> None:
    module = nn.Sequential(nn.LazyLinear(3), registered(linear(), "_parameters", "weight", 5))
    with fails("2 faults", "0.weight", "1.weight (a int)"):
        ls.inspect(module)


@pytest.mark.slow
def test_a_hundred_thousand_modules_are_mapped() -> None:
    module = nn.Module()
    for number in range(100_000):
        registered(module, "_modules", f"m{number}", registered(nn.Module(), "_parameters", "w", None))
    registered(module, "_modules", "last", linear())
    started = time.process_time()
    found = ls.inspect(module)
    assert len(found.modules) == 100_001
    assert len(found.weights) == 1
    assert time.process_time() - started < 30


def test_the_number_of_modules_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_tree, "MOST_MODULES", 10)
    assert len(ls.inspect(nn.Sequential(*[linear() for _ in range(9)])).modules) == 9
    with fails("too large a module tree: more than 10 modules"):
        ls.inspect(nn.Sequential(*(linear() for _ in range(10))))


def test_what_prove_runs_and_raises_is_a_finding() -> None:
    plan = ls.plan(ls.inspect(llama()))
    before = torch._C._len_torch_function_stack()
    proof = ls.prove(plan, holding(Exits))
    assert not proof.exact
    assert "PEFT raises SystemExit" in proof.differences[0]
    assert torch._C._len_torch_function_stack() == before


# Trees at random.

SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (4, 4), (0, 4), (4, 0), (2,) * 6, (2, 3, 4), (1,), (0,))
NAMES = ("q_proj", "k_proj", "up_proj", "lm_head", "embed_tokens", "experts", "0", "1", "default", "weight", "a b", "é")
BAD_NAMES = ("a.b", "", "x\ny", 7)


class Tree:
    """A random module tree with odd things in it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made: list[Any] = []

    def module(self, depth: int = 0) -> Any:
        choose = self._random
        if depth and self._made and choose.random() < 0.08:
            return choose.choice(self._made)  # shared, or a cycle
        kinds: list[Callable[[], Any]] = [
            lambda: nn.Linear(choose.choice((1, 4)), 4),
            lambda: nn.Embedding(5, 4),
            lambda: nn.Conv1d(2, 4, choose.choice((1, 3)), groups=choose.choice((1, 2))),
            lambda: nn.MultiheadAttention(4, 2),
            lambda: Conv1D(4, 4),
            lambda: nn.LayerNorm(4),
            lambda: nn.LSTM(4, 4),
            lambda: Trap(),
            lambda: Mocks(),
            lambda: Liar(),
        ]
        module = choose.choice(kinds)() if depth > 3 or choose.random() < 0.4 else nn.Module()
        self._made.append(module)
        if depth < 4:
            for _ in range(choose.randrange(5)):
                module._modules[self._name()] = self._child(depth)
        if choose.random() < 0.3:
            name = choose.choice(("weight", "gate_up_proj", "down_proj", "bias", "in_proj_weight"))
            module._parameters[name] = self._parameter()
        for name, values in (
            ("groups", (0, -1, "x", 2, None)),
            ("is_transposed", (True, 1, torch.ones(2))),
            ("config", ({}, None, unittest.mock.MagicMock(), transformers.LlamaConfig())),
            ("out_features", ("x", 10**30, -1)),
        ):
            if choose.random() < 0.05:
                object.__setattr__(module, name, choose.choice(values))
        return module

    def _name(self) -> Any:
        return self._random.choice(BAD_NAMES if self._random.random() < 0.01 else NAMES)

    def _child(self, depth: int) -> Any:
        if self._random.random() < 0.01:
            return self._random.choice((5, "x", unittest.mock.MagicMock(), nn.Linear))
        return None if self._random.random() < 0.03 else self.module(depth + 1)

    def _parameter(self) -> Any:
        choose = self._random
        if choose.random() < 0.03:
            return choose.choice((5, "x", nn.parameter.UninitializedParameter()))
        if choose.random() < 0.1:
            return None
        device, dtype = choose.choice(("cpu", "meta")), choose.choice((torch.float, torch.complex64, torch.half))
        return nn.Parameter(torch.ones(choose.choice(SHAPES), dtype=dtype, device=device))


def run_all(seed: int) -> str:
    """What a random tree came to: an error of ours, or as far as its own verbs go."""
    module = Tree(seed).module()
    try:
        found = ls.inspect(module)
    except LorascopeError:
        return "no map"
    str(found)
    reached = "map"
    for configuration in (
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "0"], "modules_to_save": ["lm_head"]},
        {"target_modules": ".*"},
        {"target_parameters": ["weight", "gate_up_proj"], "rank_pattern": {"q_proj": 3}},
    ):
        with contextlib.suppress(LorascopeError):
            ls.verify(found, configuration)
            reached = "verified"
        with contextlib.suppress(LorascopeError):
            str(ls.check(found, configuration))
    for rules in (("all",), ("other",), ("qv",)):
        with contextlib.suppress(LorascopeError):
            plan = ls.plan(found, *rules)
            str(plan)
            ls.verify(found, plan)
            reached = "planned"
    if seed % 5 == 0:
        for verb in (ls.compare, ls.list_trainable_modules, lambda one: ls.recommend(one, "style")):
            with contextlib.suppress(LorascopeError):
                verb(found)
        with contextlib.suppress(LorascopeError):
            ls.inspect(module, trace=True, inputs={"input": torch.ones(2, 4)})
    return reached


def test_random_trees() -> None:
    outcomes = Counter(run_all(seed) for seed in range(100))
    assert sum(outcomes.values()) == 100
    assert len(outcomes) >= 3
    assert outcomes["planned"] >= 15


@pytest.mark.slow
def test_many_random_trees() -> None:
    outcomes = Counter(run_all(seed) for seed in range(100, 1_600))
    assert sum(outcomes.values()) == 1_500
    assert outcomes["planned"] >= 250
