"""Conversion operations of transformers, on shapes alone.

Only shapes are computed: what an operation does to numbers without changing a shape is nothing here. Each is restated
from the class of its name in `transformers/core_model_loading.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.checkpoint.conversions.table import ConversionRule

Shape = tuple[int, ...]
Expected = Callable[[str], Shape | None]


class ShapeError(ValueError):
    """Tensors that an operation cannot take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """Shapes that the model expects, and its configuration."""

    expected: Expected
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """Context of an operation: rule, first target's name, model."""

    rule: ConversionRule
    target: str
    model: Model


# Every operation takes and gives: pattern to the shapes collected for it.
_Shapes = dict[str, list[Shape]]


def _only(tensors: _Shapes) -> Shape:
    shapes = [shape for group in tensors.values() for shape in group]
    if len(shapes) != 1:
        raise ShapeError(f"{len(shapes)} tensors where one is converted")
    return shapes[0]


def _axis(shape: Shape, *dims: int) -> None:
    for dim in dims:
        if not -len(shape) <= dim < len(shape):
            raise ShapeError(f"a tensor of {by_sides(shape)} has no axis {dim}")


def by_sides(shape: Shape) -> str:
    """`64 × 32`."""
    return " × ".join(map(str, shape)) or "one number"


def _merge_modulelist(tensors: _Shapes, step: Step, *, dim: int) -> _Shapes:
    merged = {}
    for pattern, shapes in tensors.items():
        target = step.rule.targets[0] if len(tensors) == 1 else pattern
        merged[target] = [_stacked(shapes, dim)]
    return merged


def _stacked(shapes: Sequence[Shape], dim: int) -> Shape:
    counts = Counter(shapes)
    if len(counts) > 1:
        (usual, _), *others = counts.most_common()
        odd = ", ".join(f"{count} of {by_sides(shape)}" for shape, count in others[:3])
        raise ShapeError(f"the tensors to stack differ: {counts[usual]} of {by_sides(usual)}, {odd}")
    shape = shapes[0]
    return (*shape[:dim], len(shapes), *shape[dim:])


def _concatenate(tensors: _Shapes, step: Step, *, dim: int) -> _Shapes:
    in_order = [shape for source in step.rule.sources for shape in tensors.get(source, ())]
    return {step.rule.targets[0]: [_joined(in_order, dim)]}


def _joined(shapes: Sequence[Shape], dim: int) -> Shape:
    first = shapes[0]
    _axis(first, dim)
    if any(len(s) != len(first) or s[:dim] != first[:dim] or s[dim + 1 :] != first[dim + 1 :] for s in shapes):
        raise ShapeError(
            f"tensors that do not fit together along axis {dim}: {', '.join(map(by_sides, dict.fromkeys(shapes)))}"
        )
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _chunk(tensors: _Shapes, step: Step, *, dim: int) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    # As torch.chunk: pieces of equal size but for the last.
    size = -(-shape[dim] // len(step.rule.targets))
    sizes = [min(size, shape[dim] - i * size) for i in range(len(step.rule.targets))]
    if min(sizes) <= 0:
        raise ShapeError(f"a tensor of {by_sides(shape)} cannot be cut into {len(sizes)} along axis {dim}")
    return _pieces(shape, dim, sizes, step.rule.targets)


def _pieces(shape: Shape, dim: int, sizes: Iterable[int], targets: Iterable[str]) -> _Shapes:
    return {target: [(*shape[:dim], size, *shape[dim + 1 :])] for target, size in zip(targets, sizes, strict=True)}


def _split(tensors: _Shapes, step: Step, *, dim: int) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    targets = step.rule.targets
    sizes = [_expected(step, target)[dim] for target in targets]
    if sum(sizes) != shape[dim]:
        raise ShapeError(
            f"a tensor of {by_sides(shape)} cannot be split into {', '.join(map(str, sizes))} along axis {dim}"
        )
    return _pieces(shape, dim, sizes, targets)


def _transpose(tensors: _Shapes, step: Step, *, dim0: int, dim1: int, check_dims: bool = False) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim0, dim1)
    rule = step.rule
    target = rule.sources[0] if len(rule.targets) > 1 else rule.targets[0]
    if check_dims and shape == _expected(step, rule.targets[0], shape):
        return {target: [shape]}
    turned = list(shape)
    turned[dim0], turned[dim1] = shape[dim1], shape[dim0]
    return {target: [tuple(turned)]}


def _interleave(tensors: _Shapes, step: Step, *, dim: int, inverse: bool = False) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    if shape[dim] % 2:
        raise ShapeError(f"a tensor of {by_sides(shape)} holds no pairs along axis {dim}")
    return {step.rule.targets[0]: [shape]}


def _permute_for_rope(tensors: _Shapes, step: Step, **_: Any) -> _Shapes:
    one_to_one = len(step.rule.sources) == len(step.rule.targets) == 1
    return {step.rule.targets[0] if one_to_one else pattern: shapes for pattern, shapes in tensors.items()}


def _ernie_fuse_and_split(tensors: _Shapes, step: Step, *, stack_dim: int, concat_dim: int) -> _Shapes:
    rule = step.rule
    fused: dict[str, list[Shape]] = {target: [] for target in rule.targets}
    for source in rule.sources:
        shapes = tensors.get(source)
        if shapes is None:
            raise ShapeError(f'no tensor matches "{source}"')
        size = -(-len(shapes) // len(rule.targets))
        for i, target in enumerate(rule.targets):
            if not shapes[i * size : (i + 1) * size]:
                raise ShapeError(f"{len(shapes)} tensors cannot be shared out among {len(rule.targets)} stacks")
            fused[target].append(_stacked(shapes[i * size : (i + 1) * size], stack_dim))
    return {target: [_joined(shapes, concat_dim)] for target, shapes in fused.items()}


def _unpad_vocabulary(tensors: _Shapes, step: Step) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, 0)
    rows, *rest = shape
    return {step.rule.targets[0]: [(min(rows, _number(step.model.config, "unpadded_vocab_size")), *rest)]}


def _merge_message_queries(tensors: _Shapes, step: Step) -> _Shapes:
    shapes = [shape for source in step.rule.sources for shape in tensors[source]]
    if len(shapes) != 2 or shapes[0] != shapes[1] or not shapes[0] or shapes[0][0] % 2:
        raise ShapeError(f"queries of {', '.join(map(by_sides, shapes))}, which are no two for each layer")
    rows, *rest = shapes[0]
    return {step.rule.targets[0]: [(rows // 2, 4, *rest)]}


def _dequantize_experts(tensors: _Shapes, step: Step) -> _Shapes:
    """A stack of experts; with a largest value beside it, two codes stand in a byte."""
    if len(tensors) == 1:
        return {step.rule.targets[0]: [_only(tensors)]}
    weight, scale, largest, _ = (tensors.get(source) for source in step.rule.sources)
    if not weight or not scale or len(weight[0]) != 3:
        raise ShapeError("not both a stack of experts and its scales")
    experts, rows, columns = weight[0]
    width, block = (columns * 2, 16) if largest else (columns, 32)
    if scale[0] != (experts, rows, width // block) or width % block:
        raise ShapeError(f"scales of {by_sides(scale[0])} for experts of {by_sides((experts, rows, width))}")
    return {step.rule.targets[0]: [(experts, rows, width)]}


# Operations that take what there is of their sources.
PARTIAL = frozenset({"Inkling2LoopDequantizeExperts"})

# transformers' operations by class name. The table's generator refuses any other.
OPERATIONS: Mapping[str, Callable[..., _Shapes]] = {
    "Chunk": _chunk,
    "Concatenate": _concatenate,
    "ErnieFuseAndSplitTextVisionExperts": _ernie_fuse_and_split,
    "Inkling2LoopDequantizeExperts": _dequantize_experts,
    "Inkling2LoopMergeMessageQueries": _merge_message_queries,
    "Inkling2UnpadVocab": _unpad_vocabulary,
    "Interleave": _interleave,
    "MergeModulelist": _merge_modulelist,
    "PermuteForRope": _permute_for_rope,
    "Split": _split,
    "Transpose": _transpose,
}


def _expected(step: Step, target: str, shape: Shape = ()) -> Shape:
    """The run-time shape of a target, by model or configuration."""
    known = step.model.expected(step.target.replace(step.rule.targets[0], target))
    return _from_config(target, step.model.config, shape) if known is None else known


def _from_config(target: str, config: Mapping[str, Any], shape: Shape) -> Shape:
    """Shapes that a few architectures compute from the configuration.

    `models/molmo2/modeling_molmo2.py`, `models/sarvam_moe/modeling_sarvam_moe.py`: q_proj has `num_attention_heads *
    head_dim` rows, k_proj and v_proj `num_key_value_heads * head_dim`. `models/qwen3_vl_moe/modeling_qwen3_vl_moe.py`:
    gate_up_proj is (experts, 2 × intermediate, hidden), down_proj (experts, hidden, intermediate); the one of both orders
    that has `hidden_size` at the right place. `models/lara_mini/modeling_lara_mini.py`: in_proj_qkv has a key's rows twice
    and a value's, in_proj_z a value's, the others one for each value head.
    """
    number = partial(_number, config)
    match target:
        case "self_attn.q_proj" | "q_proj":
            return (number("num_attention_heads") * number("head_dim"),)
        case "self_attn.k_proj" | "self_attn.v_proj" | "k_proj" | "v_proj":
            return (number("num_key_value_heads") * number("head_dim"),)
        case "linear_attn.in_proj_qkv":
            keys = number("linear_num_key_heads") * number("linear_key_head_dim")
            return (2 * keys + number("linear_num_value_heads") * number("linear_value_head_dim"),)
        case "linear_attn.in_proj_z":
            return (number("linear_num_value_heads") * number("linear_value_head_dim"),)
        case "linear_attn.in_proj_b" | "linear_attn.in_proj_a":
            return (number("linear_num_value_heads"),)
        case "mlp.experts.gate_up_proj" | "mlp.experts.down_proj":
            place = 2 if target.endswith("gate_up_proj") else 1
            if shape[place] == number("hidden_size"):
                return shape
            if shape[3 - place] == number("hidden_size"):
                return (shape[0], shape[2], shape[1])
            raise ShapeError(f"no side of {by_sides(shape)} is the hidden size, {number('hidden_size')}")
    raise ShapeError(f'the shape of "{target}" in the running model is not known')


def _number(config: Mapping[str, Any], key: str) -> int:
    text = config.get("text_config", config)
    value = text.get(key) if isinstance(text, Mapping) else None
    if type(value) is not int or value < 1:
        raise ShapeError(f"how the model cuts or turns this tensor depends on {key}, which config.json does not say")
    return value
