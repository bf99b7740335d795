"""Tensors of a saved adapter (`get_peft_model_state_dict`).

Restates PEFT 0.21.2, `utils/save_and_load.py`, `tuners/tuners_utils.py` (`_get_adapter_state_dict`) and the shapes that
`tuners/lora/layer.py` and `dora.py` give their factors. Names are those of the file: the adapter's own name (`default`)
is taken out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules import matchers, modules_to_save, moe_rewrite, parameter_count, token_rows
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.modules_to_save import copied_modules
from lorascope.peft_rules.name_patterns import compiled
from lorascope.peft_rules.releases import NEWEST, release_of
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution

PREFIX = "base_model.model."
# What PEFT's wrappers put into the names of what they wrap.
WRAPPED = ".base_layer"
# EMBEDDING_LAYER_NAMES: targeting a module that is called so makes PEFT save its base weight too.
_VOCABULARY = ("embed_tokens", "lm_head")

# down, up: the factors A and B; magnitude: DoRA's; up_bias: `lora_bias`; bias: one of the base model's that `bias` trains;
# copy: of a module that modules_to_save trains in full; base: the untouched weight of a targeted embedding; diagonal:
# KaSA's; rows: of an embedding, trained for some tokens.
Part = Literal["down", "up", "magnitude", "up_bias", "bias", "copy", "base", "diagonal", "rows"]


@dataclasses.dataclass(frozen=True, slots=True)
class SavedTensor:
    """One tensor of a saved adapter.

    Attributes:
        name: As the file has it.
        shape: Its shape.
        part: What it is, see `Part`.
        owner: The adapted weight (`Adapted.name`), the saved module, or the module whose bias or base weight it is.
        rank_side: The side of the shape that is the rank (times the experts of a fused weight), or None.
        rank: The rank by the configuration, 0 where there is none.
    """

    name: str
    shape: tuple[int, ...]
    part: Part
    owner: str
    rank_side: int | None = None
    rank: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class SavedTensors:
    """All tensors of a saved adapter.

    Attributes:
        tensors: By name.
        copies: The full names of the modules that are saved whole. Their buffers, which a map does not know, are saved
            with them.
        vocabulary: The base weights of the embeddings, which PEFT also saves where the vocabulary was resized or it is
            told to (`save_embedding_layers`), by name; those that it saves anyway are among `tensors` as well.
        exact: The names are all; False where saved modules lie within each other, of which PEFT makes copies of copies.
    """

    tensors: Mapping[str, SavedTensor]
    copies: tuple[str, ...] = ()
    vocabulary: Mapping[str, SavedTensor] = dataclasses.field(default_factory=dict)
    exact: bool = True


def saved_tensors(model: ModelMap, config: AdapterConfig, resolution: Resolution, peft: str = NEWEST) -> SavedTensors:
    """The tensors that `save_pretrained` of PEFT 0.21.2 writes.

    Args:
        model: The map of the model.
        config: The configuration.
        resolution: What PEFT does with it, from `resolve`; a refused one has no tensors.
        peft: The release by whose rules it was resolved.

    Raises:
        LorascopeError: The version is unknown.
        BadPatternError: A pattern is not a regular expression, which `resolve` would have said.
    """
    if resolution.refusal is not None:
        return SavedTensors({})
    saving = _Saving(model, config, resolution.adapted, peft)
    tensors = {tensor.name: tensor for tensor in saving.all()}
    vocabulary = {tensor.name: tensor for tensor in saving.vocabulary()}
    return SavedTensors(
        tensors, tuple(f"{PREFIX}{saving.path(name)}" for name in saving.copies), vocabulary, saving.exact
    )


def base_tensor_names(
    model: ModelMap, config: AdapterConfig, resolution: Resolution, peft: str = NEWEST
) -> frozenset[str]:
    """Names of the base model's parameters outside of copied modules.

    A tensor of such a name in an adapter's file is loaded over the base model's.

    Raises:
        LorascopeError: The version is unknown.
    """
    saving = _Saving(model, config, resolution.adapted, peft)
    return frozenset(f"{PREFIX}{saving.place(name)}" for name, _ in saving.base() if not saving.copy_above(name))


class _Saving:
    """One configuration on one model, with PEFT's wrappers."""

    def __init__(self, model: ModelMap, config: AdapterConfig, adapted: Iterable[Adapted], peft: str) -> None:
        self.model = model
        self.config = config
        self.release = release_of(peft)
        self.modules: list[tuple[Module, int]] = []
        ranks: dict[str, int] = {}
        for one in adapted:
            module = model.module_by_name.get(one.name)
            if module is not None:
                self.modules.append((module, one.rank))
            else:
                ranks[one.name] = one.rank
        # Owner -> the adapted parameters of it, in the order in which PEFT puts one wrapper around the other.
        self.parameters: dict[str, list[tuple[str, tuple[int, ...], int]]] = {}
        for owner, name, shape in parameter_names(model):
            if name in ranks:
                self.parameters.setdefault(owner, []).append((name, shape, ranks[name]))
        self.wraps = {module.name: 1 for module, _ in self.modules}
        for module, _ in self.modules:
            if module.kind == "multihead_attention":
                self.wraps.setdefault(f"{module.name}.out_proj", 1)
        for owner, parameters in self.parameters.items():
            self.wraps[owner] = self.wraps.get(owner, 0) + len(parameters)
        entries = modules_to_save.names_in_the_end(config.modules_to_save, config.task_type)
        copied = copied_modules(model, entries, self.wraps)
        self.copies = tuple(dict.fromkeys(copied.modules)) + tuple(self._aliases(entries))
        twice = config.task_type in modules_to_save.SAVING_TWICE
        # Samplers of Monte CLoRA and buffers of VeLoRA are saved with the factors, and rows next to copies in other places.
        rare = config.monteclora_config is not None or config.velora_config is not None
        self.exact = not copied.nested and not rare and not (self.copies and config.trainable_token_indices)
        if twice and "base_model.model".endswith(entries):
            self.exact = False  # PEFT then copies the whole model by its own name for it

    def _aliases(self, entries: tuple[str, ...]) -> Iterator[str]:
        """Second names of modules, which PEFT copies again."""
        for name in dict.fromkeys(name for group in self.model.ties for name in group):
            owner = name.rpartition(".")[0]
            if entries and owner and owner not in self.model.module_by_name and owner.endswith(entries):
                yield owner

    # Names.

    def path(self, name: str) -> str:
        """A module's name in the wrapped model, with the outermost wrapper."""
        if not self.wraps:
            return name
        path, at = "", -1
        while (end := name.find(".", at + 1)) >= 0:
            path += name[max(at, 0) : end] + WRAPPED * self.wraps.get(name[:end], 0)
            at = end
        return path + name[max(at, 0) :]

    def place(self, name: str) -> str:
        """A base parameter's name in the wrapped model."""
        owner, dot, leaf = name.rpartition(".")
        return f"{self.path(owner)}{WRAPPED * self.wraps.get(owner, 0)}.{leaf}" if dot else leaf

    def copy_above(self, name: str) -> str:
        """The outermost saved module around a name, or empty."""
        return next((copy for copy in self.copies if name == copy or name.startswith(f"{copy}.")), "")

    # Tensors.

    def all(self) -> Iterator[SavedTensor]:
        """All tensors, unordered; equal ones may repeat."""
        for module, rank in self.modules:
            yield from self._module_factors(module, rank)
        for owner, parameters in self.parameters.items():
            for depth, (name, shape, rank) in enumerate(reversed(parameters)):
                yield from self._parameter_factors(owner, name, shape, rank, WRAPPED * depth)
        yield from self._copies()
        yield from self._biases()
        yield from self._rows()
        if self._vocabulary_targeted():
            targeted = {self.model.input_embeddings, self.model.output_embeddings} & self.wraps.keys()
            yield from (tensor for tensor in self.vocabulary() if tensor.owner in targeted)

    def _module_factors(self, module: Module, rank: int) -> Iterator[SavedTensor]:
        stem = f"{PREFIX}{self.path(module.name)}"
        factors = parameter_count.module_factors(module, rank, self.config, self.release)
        name = module.name
        if module.kind == "embedding":
            yield SavedTensor(f"{stem}.lora_embedding_A", factors.down, "down", name, 0, rank)
            yield SavedTensor(f"{stem}.lora_embedding_B", factors.up, "up", name, 1, rank)
        else:
            # The rank can be read off a side that is as long as the rank: not off blocks, or what a group shares.
            yield SavedTensor(f"{stem}.lora_A.weight", factors.down, "down", name, 0, factors.down[0])
            side = 1 if module.groups == 1 and factors.up[1] == factors.down[0] else None
            yield SavedTensor(f"{stem}.lora_B.weight", factors.up, "up", name, side, factors.down[0])
        if factors.up_bias:
            inner_bias = factors.inner_up[0] if factors.inner_up else 0
            yield SavedTensor(f"{stem}.lora_B.bias", (factors.up_bias - inner_bias,), "up_bias", name)
        if factors.magnitude:
            # PEFT takes ".weight" off this name, but not within what modules_to_save copies.
            ending = ".weight" if self.copy_above(name) else ""
            ones = factors.up[2:]
            shape = (1, factors.magnitude, *ones) if ones else (factors.magnitude,)
            yield SavedTensor(f"{stem}.lora_magnitude_vector{ending}", shape, "magnitude", name)
        if self.config.kasa_config is not None:
            yield SavedTensor(f"{stem}.lora_diag", (rank,), "diagonal", name)
        if factors.inner_down:
            stem += f"{WRAPPED}.out_proj"
            yield SavedTensor(f"{stem}.lora_A.weight", factors.inner_down, "down", name, 0, rank)
            yield SavedTensor(f"{stem}.lora_B.weight", factors.inner_up, "up", name, 1, rank)
            if factors.up_bias:
                yield SavedTensor(f"{stem}.lora_B.bias", (factors.inner_up[0],), "up_bias", name)

    def _parameter_factors(
        self, owner: str, name: str, shape: tuple[int, ...], rank: int, depth: str
    ) -> Iterator[SavedTensor]:
        module = self.model.module_by_name[owner]
        factors = parameter_count.parameter_factors(shape, rank, module, self.config, self.release)
        stem = f"{PREFIX}{self.path(owner)}{depth}"
        yield SavedTensor(f"{stem}.lora_A.weight", factors.down, "down", name, 0, rank)
        yield SavedTensor(f"{stem}.lora_B.weight", factors.up, "up", name, 1, rank)

    def _rows(self) -> Iterator[SavedTensor]:
        """The rows of embeddings that `trainable_token_indices` trains."""
        rows = token_rows.token_rows(self.model, self.config, (), ())
        for name, shape in rows.modules.items():
            stem = f"{PREFIX}{self.path(name)}"
            yield SavedTensor(f"{stem}.token_adapter.trainable_tokens_delta", shape, "rows", name)

    def base(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """All base parameters, under each of their names."""
        shapes = {name: shape for _, name, shape in parameter_names(self.model)}
        yield from shapes.items()
        for group in self.model.ties:
            shape = next((shapes[name] for name in group if name in shapes), None)
            if shape is not None:
                yield from ((name, shape) for name in group if name not in shapes)

    def _copies(self) -> Iterator[SavedTensor]:
        for name, shape in self.base() if self.copies else ():
            if copy := self.copy_above(name):
                yield SavedTensor(f"{PREFIX}{self.place(name)}", shape, "copy", copy)

    def _biases(self) -> Iterator[SavedTensor]:
        if self.config.bias == "none":
            return
        for name, shape in self.base():
            owner, _, leaf = name.rpartition(".")
            if leaf != "bias" or (self.config.bias != "all" and owner not in self.wraps):
                continue
            copy = self.copy_above(name)
            place = self.place(name)
            if not copy:
                yield SavedTensor(PREFIX + place, shape, "bias", owner)
                continue
            # PEFT saves such a bias as part of the copy, and again of the original and of the copy by their own names.
            stem, rest = self.path(copy), place.removeprefix(f"{self.path(copy)}.")
            for middle in ("original_module", "modules_to_save" if rest == "bias" else "modules_to_save.default"):
                yield SavedTensor(f"{PREFIX}{stem}.{middle}.{rest}", shape, "bias", owner)

    def vocabulary(self) -> Iterator[SavedTensor]:
        """The base tensors of the input and output embeddings."""
        for name in dict.fromkeys((self.model.input_embeddings, self.model.output_embeddings)):
            module = self.model.module_by_name.get(name)
            for leaf, shape in module.parameters if module else ():
                yield SavedTensor(f"{PREFIX}{self.place(f'{name}.{leaf}')}", shape, "base", name)

    def _vocabulary_targeted(self) -> bool:
        """An embedding is targeted by name, so PEFT saves base weights too."""
        targets = self._targets()
        if isinstance(targets, str):
            pattern = compiled(targets)
            names = (module.name for module in self.model.modules if module.name.rpartition(".")[2] in _VOCABULARY)
            return any(pattern.fullmatch(self.path(name)) for name in names)
        return targets is not None and any(name in targets for name in _VOCABULARY)

    def _targets(self) -> str | frozenset[str] | None:
        """`target_modules` after PEFT rewrote, expanded and shortened them."""
        saved = modules_to_save.names_before_matching(self.config.modules_to_save, self.config.task_type)
        targets = moe_rewrite.converted_targets(self.model, self.config, saved, self.release).modules
        if targets is None:
            targets = matchers.default_targets(self.model.model_type, self.release)
        if isinstance(targets, str) and targets.lower() == matchers.ALL_LINEAR:
            targets = matchers.all_linear_targets(self.model, self.config.task_type)
        if isinstance(targets, frozenset):
            targets = matchers.condensed_targets(targets, ["", *(module.name for module in self.model.modules)])
        return targets
