"""Modules from names and shapes alone, for models without known code."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model import lexicon
from lorascope.model.role_names import role_of_name
from lorascope.model.types import Module, Weight
from lorascope.names import NUMBER, template
from lorascope.sources.checkpoint.types import Stored

Parameters = dict[str, tuple[int, ...]]

# Real checkpoints nest about ten modules; a hostile one could make every name a thousand containers.
_DEEPEST = 40
_SPARE_MODULES = 1_000  # in addition to three per tensor
_HINT = "No model is built like that; check where the files come from."

# Last words of buffers: saved with the weights, never trained.
_BUFFERS = {
    **dict.fromkeys(("inv_freq", "freqs_cis", "cos_cached", "sin_cached", "rope_freqs"), "rotary frequencies"),
    **dict.fromkeys(("masked_bias", "causal_mask", "attn_mask", "attention_mask", "future_mask"), "an attention mask"),
    **dict.fromkeys(("running_mean", "running_var", "num_batches_tracked"), "statistics of a batch norm"),
    **dict.fromkeys(("position_ids", "relative_position_index"), "a table of positions"),
    "logn_tensor": "factors of the attention scores by length",
}
# Common words, which count only under such a module.
_BUFFERS_UNDER = (
    (re.compile(r"rope|rotary"), frozenset({"freqs", "cos", "sin"}), "rotary frequencies"),
    (re.compile(r"alibi|relative_pe"), frozenset({"slopes"}), "slopes of ALiBi"),
)
_FLOATS = re.compile(r"BF|F")  # safetensors' codes of numbers that can be trained

# The positional convolution of wav2vec2 reaches over 128 frames; experts are wider.
_LONGEST_KERNEL = 256
_EXPERTS = frozenset(word for word, opened in lexicon.BLOCKS.items() if opened == "ffn.expert")
_ROUTERS = frozenset(word for word, opened in lexicon.BLOCKS.items() if opened == "router")

_NORM = re.compile(r"(?:^|_)(?:[a-z]*norm|ln)\d*(?:_|$)", re.IGNORECASE)
_EMBEDDING_ROLES = ("embedding.token", "embedding.position", "embedding.type", "embedding.query")
_LEAF_ROLES = {**lexicon.BARE_LEAVES, **lexicon.LEAVES}


@dataclasses.dataclass(frozen=True)
class NamedTree:
    """The module tree that names and shapes of a checkpoint imply.

    Attributes:
        modules: Every module that a name passes through, numbers in numeric order; no class is known.
        root_parameters: Parameters that stand in no module.
        dropped: Tensors that are no parameters, with the reason.
        notes: What was concluded from shapes and should be known.
    """

    modules: tuple[Module, ...]
    root_parameters: tuple[tuple[str, tuple[int, ...]], ...]
    dropped: Mapping[str, str]
    notes: tuple[str, ...]


def modules_from_names(tensors: Mapping[str, Stored]) -> NamedTree:
    """The module tree that names imply, kinds by name and shape.

    A 2-D `weight` is a linear layer unless its name says embedding or norm; with three dimensions and more it is a
    convolution, or a stack of experts where a word says so; any other parameter is bare. Which way a matrix is stored
    is read from its bias: a `Conv1D` keeps (in, out), and its bias has as many entries as the weight has columns.

    Not in the names, and so not here: classes, groups of convolutions, modules without parameters, a prefix that the
    code puts in front, and whether a lone `weight` is held by an `nn.Linear` or by a class that PEFT refuses.

    Raises:
        LorascopeError: Names are nested deeper than those of any model, or have nothing before or after a dot.
    """
    faults = list(itertools.islice(_faults(tensors), 5))
    if faults:
        raise LorascopeError(*faults, where="tensor names", hint=_HINT)
    dropped: dict[str, str] = {}
    own = _empty_modules(tensors, _SPARE_MODULES + 3 * len(tensors))
    for name in _natural(tensors):
        module, _, leaf = name.rpartition(".")
        reason = _no_parameter(module, leaf, tensors[name])
        if reason:
            dropped[name] = reason
        else:
            own[module][leaf] = tensors[name].shape
    root = own.pop("", {})
    kinds = {name: _kind(name, parameters, own) for name, parameters in own.items()}
    turned, undecided = _stored_in_out(own, kinds)
    kinds.update(dict.fromkeys(turned, "conv1d"))
    modules = tuple(
        Module(name, "", kinds[name], _in_order(own[name]), transposed=_experts_in_out(own[name]))
        for name in _natural(own)
    )
    return NamedTree(modules, _in_order(root), dropped, tuple(_notes(modules, undecided)))


def flattened_weights(modules: Iterable[Module], model_type: str) -> dict[str, tuple[int, ...]]:
    """Weights with the names of matrices and fewer than two dimensions."""
    weights = {}
    for module in modules:
        weight = dict(module.parameters).get("weight", (1, 1))
        leaf = module.name.rpartition(".")[2]
        if module.kind == "other" and len(weight) < 2 and not _NORM.search(leaf) and leaf not in _BUFFERS:
            role, guess = role_of_name(template(module.name), "linear", model_type)
            if not guess and role.part and role.block in ("attention", "ffn", "mixer", "embedding", "head"):
                weights[f"{module.name}.weight"] = weight
    return weights


def input_output_embeddings(weights: Sequence[Weight]) -> tuple[str, str]:
    """The modules that `get_input_embeddings()` and `get_output_embeddings()` most likely return.

    Args:
        weights: With their roles, as `classify` gives them.

    Returns:
        The module of the token embedding and that of the output head; empty where there is none or more than one
        that could be it.
    """
    text = [weight for weight in weights if weight.role.component == "text"]
    tokens = [weight for weight in text if (weight.role.block, weight.role.part) == ("embedding", "token")]
    heads = [weight for weight in text if (weight.role.block, weight.role.part) == ("head", "lm")]
    # Other tables than the vocabulary differ from the layers in width; a second head differs in height.
    widths = Counter(weight.shape[-1] for weight in text if weight.role.block in ("attention", "ffn"))
    width = widths.most_common(1)[0][0] if widths else 0
    token = _largest_module([weight for weight in tokens if weight.shape[-1] == width] or tokens)
    heights = {weight.shape[0] for weight in tokens if weight.module == token}
    return token, _largest_module([weight for weight in heads if weight.shape[0] in heights] or heads)


def _largest_module(weights: Sequence[Weight]) -> str:
    """The module of the largest weight, if there is only one."""
    most = max((weight.size for weight in weights), default=0)
    modules = {weight.module for weight in weights if weight.size == most}
    return modules.pop() if len(modules) == 1 else ""


def _faults(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name.count(".") > _DEEPEST:
            yield f"{name[:60]!r}… is nested deeper than {_DEEPEST} modules"
        elif "" in name.split("."):
            yield f"{name!r} has an empty word, which no module can be called"


def _natural(names: Iterable[str]) -> list[str]:
    """Sorted with `layers.2` before `layers.10`, and numbers before words."""
    keys: dict[str, tuple[int, int, str]] = {}

    def key(name: str) -> list[tuple[int, int, str]]:
        words = name.split(".")
        for word in words:
            if word not in keys:
                keys[word] = (0, int(word), word) if NUMBER.fullmatch(word) else (1, 0, word)
        return [keys[word] for word in words]

    return sorted(names, key=key)


def _empty_modules(names: Iterable[str], most: int) -> dict[str, Parameters]:
    """Every module that holds a tensor, and the containers around it."""
    own: dict[str, Parameters] = {"": {}}
    for name in names:
        module = name.rpartition(".")[0]
        while module not in own:
            own[module] = {}
            module = module.rpartition(".")[0]
        if len(own) > most:
            raise LorascopeError(f"they pass through more than {most} modules", where="tensor names", hint=_HINT)
    return own


def _no_parameter(module: str, leaf: str, tensor: Stored) -> str:
    """Why a tensor is no parameter, or an empty string."""
    if leaf in _BUFFERS:
        return _BUFFERS[leaf]
    shape = tensor.shape
    if leaf == "bias" and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]:
        return "a causal mask"
    for around, leaves, reason in _BUFFERS_UNDER:
        if leaf in leaves and around.search(module.lower()):
            return reason
    if not tensor.quantization and not _FLOATS.match(tensor.dtype):
        return f"holds {tensor.dtype} numbers, which are not trained"
    return ""


def _in_order(parameters: Parameters) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Weight and bias first, as modules register them; the others by name."""
    return tuple(sorted(parameters.items(), key=lambda item: (item[0] != "weight", item[0] != "bias", item[0])))


def _kind(name: str, parameters: Parameters, modules: Mapping[str, Parameters]) -> str:
    """The module's kind, by its last word and its weight's dimensions."""
    weight = parameters.get("weight", ())
    words = [word for word in name.split(".") if not NUMBER.fullmatch(word)]
    leaf = words[-1] if words else ""
    if "in_proj_weight" in parameters and f"{name}.out_proj" in modules:
        return "multihead_attention"
    if len(weight) == 2 and "bias" not in parameters and _is_embedding(leaf):
        return "embedding"
    if not parameters.keys() <= {"weight", "bias"}:
        return "other"  # neither a linear layer nor a convolution has further parameters
    if len(weight) == 2:
        return "other" if _NORM.search(leaf) else "linear"
    stacked = len(weight) == 3 and (weight[2] > _LONGEST_KERNEL or not _EXPERTS.isdisjoint(words))
    return "conv" if len(weight) in (3, 4, 5) and not stacked else "other"


def _is_embedding(leaf: str) -> bool:
    """A module's last word names a table of rows."""
    role = _LEAF_ROLES.get(leaf)
    return role in _EMBEDDING_ROLES if role else "embed" in leaf.lower() and "proj" not in leaf


def _block(name: str) -> str:
    """The name up to its first number: the module's layer."""
    number = NUMBER.search(name)
    return name[: number.end()] if number else ""


def _stored_in_out(own: Mapping[str, Parameters], kinds: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Matrices that are stored (in, out), and undecided ones.

    The bias tells, by its length, of every matrix that is not square; a square one with a bias goes with its layer.
    """
    linear = {name: (own[name]["weight"], own[name].get("bias")) for name, kind in kinds.items() if kind == "linear"}
    votes: dict[str, bool] = {}
    by_block: dict[str, set[bool]] = {}
    for name, ((rows, columns), bias) in linear.items():
        if rows != columns and bias in ((rows,), (columns,)):
            votes[name] = bias == (columns,)
            by_block.setdefault(_block(name), set()).add(votes[name])
    beside = {name for name in linear.keys() - votes.keys() if by_block.get(_block(name)) == {True}}
    square = {name for name in beside if linear[name][1] == linear[name][0][:1] == linear[name][0][1:]}
    return {name for name, vote in votes.items() if vote} | square, beside - square


def _experts_in_out(parameters: Parameters) -> bool:
    """Bare experts are stored (experts, in, out), by their shapes.

    Apart, gate, up and down fit both ways, and are taken for (experts, out, in).
    """
    fused, down = parameters.get("gate_up_proj", ()), parameters.get("down_proj", ())
    if len(fused) != 3 or len(down) != 3:
        return False
    experts, outputs, inputs = down
    as_linear = fused == (experts, 2 * inputs, outputs)
    return not as_linear and fused == (experts, inputs, 2 * outputs)


def _notes(modules: Sequence[Module], undecided: set[str]) -> Iterator[str]:
    turned = sum(module.kind == "conv1d" for module in modules)
    if turned:
        yield f"{turned} matrices are stored (in, out), as the lengths of their biases tell; taken for Conv1D modules"
    if undecided:
        yield (
            f"{len(undecided)} matrices stand beside those and have no bias that tells how they are stored; "
            "taken for (out, in)"
        )
    experts = sum(module.transposed for module in modules)
    if experts:
        yield f"the experts of {experts} modules are stored (experts, in, out), as their shapes tell"
    routers = sum(module.kind == "linear" and module.name.rpartition(".")[2] in _ROUTERS for module in modules)
    if routers:
        yield (
            f"{routers} routers are taken for linear layers; many models keep the matrix in a class of their own, "
            "which PEFT does not adapt by name"
        )
