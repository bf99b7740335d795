"""One configuration, by the rules and by the installed PEFT."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import peft
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.errors import LorascopeError
from lorascope.peft_rules.reasons import UNWRAPPABLE
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.verify import verify
from tests.helpers import peft_models
from tests.helpers.oracle import adapted_weights, peft_kwargs, peft_truth, restored


@functools.cache
def _model(name: str) -> nn.Module:
    return peft_models.build(name)


def compare(name: str, config: AdapterConfig) -> str:
    """Runs both on one pair and asserts that they agree; says how it went: refused, adapted or estimated."""
    ours = resolve(peft_models.mapped(name), config, peft.__version__)
    refusal = ""
    with restored(_model(name)) as model:
        try:
            truth, trainable = peft_truth(model, peft_kwargs(config))
        except AssertionError:
            raise
        except Exception as error:  # PEFT raises whatever it likes
            refusal = f"{type(error).__name__}: {error}"
    if refusal:
        assert ours.refusal is not None, f"only PEFT refuses {config}: {refusal}"
        assert not ours.adapted
        return "refused"
    assert ours.refusal is None, f"PEFT takes {config}"
    assert {weight.name: (weight.rank, weight.alpha, weight.scale) for weight in ours.adapted} == truth, config
    if ours.warnings_of("saved-nested"):  # the count is an estimate
        return "estimated"
    assert ours.trainable == trainable, config
    return "adapted"


def compare_rare(name: str, values: Mapping[str, Any]) -> str:
    """Runs both on one pair whose weights are there; says how it went: refused, adapted, estimated or uncovered.

    What must run before `get_peft_model` (CorDA), or needs a GPU (LoftQ), is done as far as shapes go.
    """
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    try:
        ours = verify(peft_models.mapped(name), given, peft=peft.__version__)
    except LorascopeError as error:
        if "not cover" in str(error):
            return "uncovered"
        ours = Resolution(refusal=UNWRAPPABLE.about(why=str(error)))
    truth: dict[str, tuple[str, str, str]] = {}
    trainable = 0
    refusal = ""
    with _stand_ins(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft_models.build(name, "cpu")
        try:
            if str(values.get("init_lora_weights")).startswith("corda"):
                _decompose(model, values)
            wrapped = peft.get_peft_model(model, peft.LoraConfig(**copy.deepcopy(given)))
            truth = {key: _told(*found) for key, found in adapted_weights(wrapped).items()}
            trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
        except AssertionError:
            raise
        except Exception as error:  # PEFT raises whatever it likes
            refusal = f"{type(error).__name__}: {error}"
    if refusal:
        assert ours.refusal is not None, f"only PEFT refuses {values}: {refusal}"
        return "refused"
    assert ours.refusal is None, f"PEFT takes {values}: {ours.refusal}"
    assert {weight.name: _told(weight.rank, weight.alpha, weight.scale) for weight in ours.adapted} == truth, values
    if ours.warnings_of("saved-nested"):  # the count is an estimate
        return "estimated"
    assert ours.trainable == trainable, values
    return "adapted"


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """What PEFT imports for LoftQ and Megatron, as far as shapes and names go."""
    megatron = types.ModuleType("megatron.core")
    layers = {name: type(name, (nn.Module,), {}) for name in ("ColumnParallelLinear", "RowParallelLinear")}
    megatron.tensor_parallel = types.SimpleNamespace(**layers)  # type: ignore[attr-defined]
    modules = {"megatron": types.ModuleType("megatron"), "megatron.core": megatron}
    with mock.patch("peft.tuners.lora.layer.loftq_init", _loftq), mock.patch.dict(sys.modules, modules):
        yield


def _told(rank: int, alpha: float, scale: float) -> tuple[str, str, str]:
    """Numbers as text, since NaN is no number that equals itself."""
    return repr(rank), repr(float(alpha)), repr(float(scale))


def _loftq(weight: torch.Tensor, num_bits: int, reduced_rank: int, num_iter: int = 1) -> tuple[torch.Tensor, ...]:
    """PEFT's own, without the quantization, which needs a GPU and bitsandbytes."""
    from peft.utils.loftq_utils import _low_rank_decomposition

    if num_bits not in (4, 8):
        raise ValueError("bits")
    if num_iter <= 0:
        raise ValueError("iterations")
    found = _low_rank_decomposition(weight.data, reduced_rank=reduced_rank)
    return weight.data, found["R"], found["L"]


def _decompose(model: nn.Module, values: Mapping[str, Any]) -> None:
    """What `preprocess_corda` leaves on each target module; it takes as many ranks as there are."""
    from peft.tuners.tuners_utils import _get_in_out_features
    from peft.utils.other import get_pattern_key

    parameters = tuple(values.get("target_parameters") or ())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and not (parameters and f".{name}.weight".endswith(parameters)):
            inner, outer = _get_in_out_features(module)
            key = get_pattern_key(dict(values.get("rank_pattern") or {}).keys(), name)
            rank = min(dict(values.get("rank_pattern") or {}).get(key, values.get("r", 8)), inner, outer)
            module.eigens = types.SimpleNamespace(  # type: ignore[assignment]
                S_WC=torch.rand(rank), U_WC=torch.rand(outer, rank), V_WC=torch.rand(inner, rank)
            )
