"""Compares an adapter's tensors with those that PEFT would save.

What PEFT does on loading was measured with 0.21.2: it raises on another shape and on a missing copy of a module, it
warns of missing factors and leaves them as they are initialized, and it ignores everything else that it has no place for.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.loaded_names import Arrival, arrivals
from lorascope.model.types import ModelMap
from lorascope.peft_rules.state_dict import SavedTensor, SavedTensors, base_tensor_names, saved_tensors
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.sources.checkpoint.types import Tensor

_FACTORS = ("down", "up", "magnitude", "up_bias")
MAGNITUDE = ".lora_magnitude_vector"
COPY_NAME = re.compile(r"\.modules_to_save\.[^.]+\.")
OF_FACTOR = re.compile(r"\.lora_(?:(?:embedding_)?[AB]|magnitude_vector)(?:\.|$)")


@dataclasses.dataclass(frozen=True, slots=True)
class Mismatch:
    """A tensor that is there, in another shape.

    Attributes:
        wanted: What PEFT would save.
        shape: The shape in the file.
    """

    wanted: SavedTensor
    shape: tuple[int, ...]

    @property
    def ungathered(self) -> bool:
        """A dimension is missing or 0: a shard that was not gathered."""
        two = self.wanted.part in ("down", "up")
        return 0 in self.shape or (two and len(self.shape) < 2 <= len(self.wanted.shape))

    @property
    def rank(self) -> int | None:
        """The rank in the file, where that is all that differs."""
        wanted, shape, side = self.wanted, self.shape, self.wanted.rank_side
        if side is None or len(shape) != len(wanted.shape) or not wanted.rank:
            return None
        if any(a != b for at, (a, b) in enumerate(zip(shape, wanted.shape, strict=True)) if at != side):
            return None
        each = wanted.shape[side] // wanted.rank
        return shape[side] // each if shape[side] and shape[side] % each == 0 else None


class TensorComparison:
    """A file next to what PEFT would save.

    Attributes:
        model: The map of the model.
        config: The adapter's configuration.
        wanted: What PEFT would save.
        seen: The tensors of the file, under the names that PEFT's load gives them.
        matches: The tensors that PEFT has a place for, by its name.
        mismatches: Those of another shape.
        odd: The tensors that PEFT has no place for.
    """

    def __init__(
        self,
        model: ModelMap,
        config: AdapterConfig,
        resolution: Resolution,
        release: str,
        tensors: Mapping[str, Tensor],
    ) -> None:
        self.model = model
        self.config = config
        self.wanted: SavedTensors = saved_tensors(model, config, resolution, release)
        self.seen = arrivals(model, tensors)
        self.matches: dict[str, Arrival] = {}
        self.mismatches: list[Mismatch] = []
        self.odd: list[Arrival] = []
        self._resolution = resolution
        self._release = release
        for arrival in self.seen.tensors.values():
            self._take(arrival)

    def _take(self, arrival: Arrival) -> None:
        wanted = self.place(arrival.name)
        if wanted is not None:
            self.matches[wanted.name] = arrival
            if wanted.shape != arrival.shape:
                self.mismatches.append(Mismatch(wanted, arrival.shape))
        elif not self._may_be_saved(arrival.name):
            self.odd.append(arrival)

    def place(self, name: str) -> SavedTensor | None:
        """What PEFT would save under a name."""
        table = self.wanted.tensors
        # PEFT takes the magnitudes under both names.
        for spelling in (name, name.removesuffix(".weight"), f"{name}.weight"):
            if (spelling == name or MAGNITUDE in name) and spelling in table:
                return table[spelling]
        return self.wanted.vocabulary.get(name)

    def copied(self, name: str) -> bool:
        """It lies in a module that is saved whole."""
        return any(name.startswith(f"{copy}.") for copy in self.wanted.copies)

    def _may_be_saved(self, name: str) -> bool:
        """PEFT may save it, unknown to the map: a buffer or odd bias."""
        if self.copied(name) and not (self.wanted.exact and COPY_NAME.search(name)):
            return True
        # Up to 0.20 whatever has "bias" in its name was saved, buffers too.
        return self.config.bias == "all" and "bias" in name and not OF_FACTOR.search(name)

    def resized(self, mismatch: Mismatch) -> tuple[int, int] | None:
        """Vocabulary of file and model, if that is all that differs."""
        wanted, shape = mismatch.wanted, mismatch.shape
        if wanted.owner not in (self.model.input_embeddings, self.model.output_embeddings):
            return None
        rows = next((s[0] for name, s in self.model.module_by_name[wanted.owner].parameters if name == "weight"), 0)
        if len(shape) != len(wanted.shape):
            return None
        differing = [(a, b) for a, b in zip(shape, wanted.shape, strict=True) if a != b]
        return differing[0] if len(differing) == 1 and differing[0][1] == rows else None

    @cached_property
    def other_sizes(self) -> list[Mismatch]:
        """The mismatches of neither rank, vocabulary nor shards."""
        return [m for m in self.mismatches if m.rank is None and self.resized(m) is None and not m.ungathered]

    def missing(self, elsewhere: Container[str]) -> list[SavedTensor]:
        """What is not in the file, nor among names elsewhere."""
        missing = [
            tensor for name, tensor in self.wanted.tensors.items() if name not in self.matches and name not in elsewhere
        ]
        return missing if self.wanted.exact else [tensor for tensor in missing if not self.copied(tensor.name)]

    @staticmethod
    def is_factor(tensor: SavedTensor) -> bool:
        """It belongs to an adapter, not to the base model."""
        return tensor.part in _FACTORS

    @cached_property
    def has_factors(self) -> bool:
        """The file has a factor that PEFT has a place for."""
        return any(self.wanted.tensors[name].rank for name in self.matches)

    @cached_property
    def adapted(self) -> frozenset[str]:
        """The adapted weights."""
        return frozenset(tensor.owner for tensor in self.wanted.tensors.values() if self.is_factor(tensor))

    @cached_property
    def base_names(self) -> frozenset[str]:
        """Names under which a tensor is loaded over the base model's own."""
        return base_tensor_names(self.model, self.config, self._resolution, self._release)
