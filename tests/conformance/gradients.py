"""Which adapters train: one backward pass of a small model with LoRA on every module that a map calls adaptable.

The oracle is autograd. A weight whose own gradient is there while its adapter gets none is read by code that never calls
the module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import peft
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.utils import transformers_weight_conversion
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from lorascope.model.types import ModelMap, Module, Weight
from lorascope.peft_rules.adaptability import constructor_mismatch, guarded_by_mamba, known_broken, why_not_by_shape
from lorascope.peft_rules.dead_weights import key_of
from lorascope.peft_rules.releases import NEWEST, release_of
from lorascope.sources.transformers.meta_model import map_module
from lorascope.tracing.calls.types import Call

# trained: its adapter gets a gradient. read: its own weight gets one in the same pass, its adapter none. tied: the same, and only
# because another module shares its tensor. detached: the module is called, but what it computes leads to no output by a
# gradient. zero: its adapter has a gradient, of zeros alone. idle: nothing calls it and nothing reads it with a gradient.
# crashes: the forward pass fails with this adapter alone. refused: PEFT does not make the adapter.
STATES = ("trained", "read", "tied", "detached", "zero", "idle", "crashes", "refused")

_KINDS = ("linear", "conv1d", "embedding", "conv", "multihead_attention")
_RANK = 2
_NOISE = 0.05
_MOST_GROUPS = 512


class NothingRanError(Exception):
    """No call of the model ran, with the reason of each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What one model showed.

    Attributes:
        states: Weight name to one of `STATES`.
        keys: Weight name to its key in the table.
        failures: Calls that failed without any adapter, with the error.
        errors: Key to the error of its adapters, for those that crash or are refused.
    """

    states: Mapping[str, str]
    keys: Mapping[str, str]
    failures: Mapping[str, str]
    errors: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """What one adapter is put on: a module, or a parameter of one."""

    name: str
    key: str
    owner: str
    parameter: str = ""
    groups: int = 1
    explained: bool = False  # by its own class

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters of its owner that it adapts."""
        return (self.parameter,) if self.parameter else ("weight", "in_proj_weight")


def measure(build: Callable[[], nn.Module], calls: Callable[[nn.Module], Sequence[Call]]) -> Measured:
    """Which adapters of a model get a gradient.

    Args:
        build: Makes the model, with the same numbers at each call.
        calls: The calls that run all of it.

    Raises:
        NothingRanError: No call ran.
    """
    model = _prepared(build)
    mapping = map_module(model)
    targets = [*_targets(mapping)]
    _, called, failures = _run_plain(model, calls(model))
    planned = [call for call in calls(model) if call.method not in failures]
    if not planned:
        raise NothingRanError("; ".join(f"{method}: {why}" for method, why in failures.items()) or "no call")
    states: dict[str, str] = {}
    errors: dict[str, str] = {}
    trained, reached, past = _reached(build, planned, targets, states, errors)
    for target in (target for target in targets if target.name not in states):
        if target.name in reached:
            states[target.name] = "trained" if target.name in trained else "zero"
        elif target.name in past:
            states[target.name] = "read"
        else:
            states[target.name] = "detached" if target.owner in called and not target.parameter else "idle"
    _tell_ties(build, mapping, calls, targets, states)
    return Measured(states, {target.name: target.key for target in targets}, failures, errors)


def _tell_ties(
    build: Callable[[], nn.Module],
    mapping: ModelMap,
    calls: Callable[[nn.Module], Sequence[Call]],
    targets: Sequence[_Target],
    states: dict[str, str],
) -> None:
    """Turns `read` into `tied` where a tensor of its own in the same place gets no gradient."""
    tied = {name for group in mapping.ties for name in group}
    doubtful = [
        target
        for target in targets
        if states[target.name] == "read" and f"{target.owner}.{target.parameters[0]}" in tied
    ]
    if not doubtful:
        return
    model = _prepared(build)
    for target in doubtful:
        module = model.get_submodule(target.owner)
        old = getattr(module, target.parameters[0])
        setattr(module, target.parameters[0], nn.Parameter(old.detach().clone()))
    with_gradient, _, _ = _run_plain(model, calls(model))
    for target in doubtful:
        if f"{target.owner}.{target.parameters[0]}" not in with_gradient:
            states[target.name] = "tied"


def _targets(model: ModelMap) -> Iterator[_Target]:
    release = release_of(NEWEST)
    inside = {f"{module.name}.out_proj" for module in model.modules if module.kind == "multihead_attention"}
    for module in model.modules:
        if module.kind not in _KINDS or module.name in inside or not _has_matrix(module):
            continue
        if any(name == "weight" for name, _ in module.computed):
            continue  # a small configuration that does not fit itself
        if guarded_by_mamba(model, module.name, release) or constructor_mismatch(module):
            continue
        if module.groups > _MOST_GROUPS:
            continue  # its smallest adapter has that rank
        known = known_broken(module) is not None
        yield _Target(module.name, key_of(model, module.name), module.name, "", module.groups, known)
    for weight in model.weights:
        if weight.kind == "parameter" and weight.module and not _shape_reason(model, weight):
            parameter = weight.name.rpartition(".")[2]
            yield _Target(weight.name, key_of(model, weight.name), weight.module, parameter)


def _shape_reason(model: ModelMap, weight: Weight) -> Any:
    # What the table itself says of the weight is what is to be measured.
    module = model.module_by_name[weight.module]
    return constructor_mismatch(module) or why_not_by_shape(weight, module, release_of(NEWEST))


def _has_matrix(module: Module) -> bool:
    return any(name in ("weight", "in_proj_weight") for name, _ in module.parameters)


def _prepared(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with noise on all parameters, so that nothing is zero or one by initialization."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * _NOISE)
    model.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return model


def _run_plain(model: nn.Module, calls: Sequence[Call]) -> tuple[set[str], set[str], dict[str, str]]:
    """Parameters with a gradient, modules that were called, and calls that failed."""
    called: set[str] = set()
    failures: dict[str, str] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.add(name))
        for name, module in model.named_modules(remove_duplicate=False)
    ]
    for call in calls:
        try:
            _backward(_method(model, call.method, {}), call)
        except Exception as error:  # modeling code can raise anything
            failures[call.method] = _first_line(error)
    for hook in hooks:
        hook.remove()
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if parameter.grad is not None}, called, failures


def _backward(function: Callable[..., Any], call: Call) -> None:
    """One call and the backward pass of a random projection of every output."""
    generator = torch.Generator().manual_seed(1)
    arguments = tree_map(lambda value: _random(value, generator), dict(call.arguments))
    if "flattened_patches" in arguments:  # each has its row and column in front
        arguments["flattened_patches"][..., :2] = call.arguments["flattened_patches"][..., :2]
    outputs = [
        leaf
        for leaf in tree_leaves(_called(function, arguments))
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and (leaf.is_floating_point() or leaf.is_complex())
    ]
    if not outputs:
        return
    outputs = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in outputs]
    loss = sum((leaf.float() * torch.randn(leaf.shape, generator=generator)).sum() for leaf in outputs)
    loss.backward()


def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    if isinstance(function, LoraLayer):  # a wrapper takes its first argument by place alone, as code mostly gives it
        first, *_ = arguments
        return function(arguments[first], **{name: value for name, value in arguments.items() if name != first})
    return function(**arguments)


def _random(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator) * 0.5
    return value.clone() if isinstance(value, torch.Tensor) else value


def _method(model: nn.Module, path: str, wrappers: Mapping[int, nn.Module]) -> Any:
    """The method of a call, of the module that stands at its place now."""
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
        while isinstance(value, LoraLayer):
            value = value.get_base_layer()
    if path == "forward":
        value = model
    elif isinstance(value, nn.Module):
        value = wrappers.get(id(value), value)
    return value


class _Adapted:
    """A model with adapters on some targets.

    Raises:
        Exception: PEFT refuses one of them.
    """

    def __init__(self, model: nn.Module, targets: Sequence[_Target]) -> None:
        self.model = model
        places = {id(module): name for name, module in model.named_modules()}
        named = dict(model.named_parameters(remove_duplicate=False))
        self.own = {
            target.name: [named[full] for name in target.parameters if (full := f"{target.owner}.{name}") in named]
            for target in targets
        }
        modules = [target.name for target in targets if not target.parameter]
        config = peft.LoraConfig(
            r=_RANK,
            target_modules="|".join(map(re.escape, modules)) if modules else [],
            target_parameters=[target.name for target in targets if target.parameter] or None,
            init_lora_weights=False,
            rank_pattern={f"^{re.escape(target.name)}": target.groups for target in targets if target.groups > 1},
        )
        with warnings.catch_warnings(), _no_rewrite():
            warnings.simplefilter("ignore")
            peft.inject_adapter_in_model(config, model)
        self.layers: dict[str, list[Any]] = {}
        self.wrappers: dict[int, nn.Module] = {}
        for module in model.modules():
            if isinstance(module, LoraLayer):
                base = module.get_base_layer()
                name = places.get(id(base), "")
                if isinstance(module, ParamWrapper):
                    name = f"{name}.{module.parameter_name}" if name else module.parameter_name
                self.layers.setdefault(name, []).append(module)
                self.wrappers.setdefault(id(base), module)  # the outermost comes first
        for parameter in model.parameters():  # also the model's own
            parameter.requires_grad_(parameter.is_floating_point())

    def _factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, layers in self.layers.items():
            for layer in layers:
                own = [getattr(layer, kind) for kind in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")]
                for factors in own:
                    for factor in factors.values():
                        yield from (
                            (name, p) for p in (factor.parameters() if isinstance(factor, nn.Module) else [factor])
                        )

    def run(self, calls: Sequence[Call]) -> None:
        """Run all calls and their backward passes."""
        for call in calls:
            _backward(_method(self.model, call.method, self.wrappers), call)

    def reached(self) -> tuple[set[str], set[str], set[str]]:
        """Targets whose adapters have a gradient beyond zero, those that have any, and those whose own weight has one."""
        grads = [(name, parameter.grad) for name, parameter in self._factors() if parameter.grad is not None]
        own = {name for name, parameters in self.own.items() if any(one.grad is not None for one in parameters)}
        return {name for name, grad in grads if bool((grad != 0).any())}, {name for name, _ in grads}, own


@contextlib.contextmanager
def _no_rewrite() -> Iterator[None]:
    """Targets as they are given: without PEFT's rewrite for fused experts."""
    known = dict(transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN)
    transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN.clear()
    try:
        yield
    finally:
        transformers_weight_conversion._MODEL_TO_CONVERSION_PATTERN.update(known)


def _reached(
    build: Callable[[], nn.Module],
    calls: Sequence[Call],
    targets: Sequence[_Target],
    states: dict[str, str],
    errors: dict[str, str],
) -> tuple[set[str], set[str], set[str]]:
    """Targets whose adapters get a gradient beyond zero, and any, and those whose own weight gets one.

    What lets no call run goes into `states`.
    """
    sets: tuple[set[str], set[str], set[str]] = (set(), set(), set())

    def tried(some: Sequence[_Target]) -> tuple[str, str] | None:
        found = _try(build, calls, some)
        if isinstance(found, tuple):
            return found
        for whole, part in zip(sets, found.reached(), strict=True):
            whole |= part
        return None

    for of_parameters in (False, True):
        some = [target for target in targets if bool(target.parameter) is of_parameters]
        if not some or tried(some) is None:
            continue
        groups: dict[str, list[_Target]] = {}
        for target in some:
            groups.setdefault(target.key, []).append(target)
        for key, group in groups.items():
            if fault := tried(group):
                if not any(target.explained for target in group):
                    errors[key] = fault[1]
                states.update((target.name, fault[0]) for target in group)
    return sets


def _try(
    build: Callable[[], nn.Module], calls: Sequence[Call], targets: Sequence[_Target]
) -> _Adapted | tuple[str, str]:
    try:
        adapted = _Adapted(_prepared(build), targets)
    except Exception as error:  # PEFT raises what it likes on what it cannot wrap
        return "refused", _first_line(error)
    try:
        adapted.run(calls)
    except Exception as error:
        return "crashes", _first_line(error)
    return adapted


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]


def by_key(measured: Measured) -> dict[str, dict[str, int]]:
    """State to key to the number of weights."""
    counts: dict[str, dict[str, int]] = {}
    for name, state in measured.states.items():
        of_state = counts.setdefault(state, {})
        of_state[measured.keys[name]] = of_state.get(measured.keys[name], 0) + 1
    return counts


def names_in(measured: Measured, states: Iterable[str]) -> list[str]:
    """The weights in some states."""
    wanted = set(states)
    return [name for name, state in measured.states.items() if state in wanted]
