"""Components of a model by the structure of its module tree, where no word of a name says them.

A tower has a convolution that reads pixels or sound and no vocabulary; with a table of codes it is a codec. The text model is the stack that a vocabulary
leads to. A further stack of another width, and what stands between two widths, are connectors. What rests on widths alone
is a guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.types import Module, Role
from lorascope.model.widths import ancestors
from lorascope.names import NUMBER

Shape = tuple[int, ...]
Component = tuple[str, bool]

_COLORS = 3
# Bands of a spectrogram; fewer channels of a one-dimensional convolution are something else, but for the samples of a wave.
_FEWEST_BANDS = 40
# A causal convolution within a layer reaches over 4 tokens, the one of a conformer over 9 to 31 frames.
_LONGEST_CAUSAL = 4
# Tables with fewer rows may be of positions, queries or codes.
_SMALLEST_VOCABULARY = 2_048
_FEWEST_TOKENS = 32
_NARROWEST = 8
# A linear layer outside of layers with so many rows, and four times its columns, is a vocabulary's or many classes'.
_SMALLEST_LIKELY = 8_192
_MOST_WORK = 1_000_000
# Tables of positions have a row for each patch of a square image, and one for the class.
_LARGEST_GRID = 128
# A stack is of another width than the text model where fewer of its sides have that, as a share of its own width's.
_SAME_WIDTH = 0.5
# Tables of codes, which nobody speaks.
_CODEBOOK = re.compile(r"(?:^|[._])(?:quantiz|codebook)")
# So many neighboring patches, or layers, a connector reads at once.
_MOST_FOLDED = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """What is known of one weight by its name.

    Attributes:
        kind: `Weight.kind`.
        shape: `Weight.shape`.
        role: Its role.
        guess: The role is a guess.
        component: The component that a word of the name says, or empty.
    """

    kind: str
    shape: Shape
    role: Role
    guess: bool
    component: str


def components_by_structure(
    modules: Sequence[Module], matrices: Mapping[str, Matrix], spoken: Mapping[str, str], model_type: str
) -> dict[str, Component]:
    """Components of weights whose names say none; whether that is sure.

    Args:
        modules: The module tree.
        matrices: Its weights by name.
        spoken: The component that a word says, for the name of each module with a convolution.
        model_type: Its words are asked last, of a model without a vocabulary.
    """
    tree = _Tree(modules, matrices, spoken)
    if tree.work > _MOST_WORK:  # no model has so many stacks
        return {}
    towers: dict[str, Component] = {}
    for front, component in tree.fronts.items():
        if not spoken.get(front) and (place := tree.widest_without_vocabulary(front)) and tree.has_stack(place):
            towers[place] = ("codec" if tree.has_codes(place) else component, True)
    text = tree.leaves_text(towers)
    if not tree.vocabularies or (tree.likely and not text):
        component, sure = tree.whole(model_type)
        # Before the classifier of a speech model, `projector` narrows its output; it connects nothing.
        own = (name for name, matrix in matrices.items() if not matrix.component or name == "projector")
        return dict.fromkeys(own, (component, sure)) if component else {}
    if not text:
        towers = {}
    if towers or tree.has_named_towers or tree.has_lm_head:
        towers |= tree.further_stacks(towers)
    if towers or tree.has_named_towers:
        towers |= tree.connectors(towers)
    places = {}
    for name, matrix in matrices.items():
        place = next((prefix for prefix in (name, *ancestors(name)) if prefix in towers), "")
        if place and not matrix.component:
            places[name] = towers[place]
    return places


class _Tree:
    """Fronts, vocabularies and stacks of a module tree."""

    def __init__(self, modules: Sequence[Module], matrices: Mapping[str, Matrix], spoken: Mapping[str, str]) -> None:
        self._matrices = matrices
        self.likely = False
        self._spoken = spoken
        stacks: dict[str, list[str]] = {}
        for name, matrix in matrices.items():
            number = NUMBER.search(name)
            if number and number.end() < len(name) and matrix.kind != "embedding":
                stacks.setdefault(name[: number.start()].rstrip("."), []).append(name)
        self._all_stacks = set(stacks)
        self._stacks = {
            place: sides
            for place, names in stacks.items()
            if (sides := Counter(side for name in names for side in matrices[name].shape[-2:])) and len(names) > 1
        }
        self._free = {
            place for place in self._stacks if any(matrices[name].component in ("", "text") for name in stacks[place])
        }
        self._linear_places = {place for name in matrices for place in ancestors(name) if matrices[name].kind != "conv"}
        self._heads: set[Shape] = {
            matrix.shape for name, matrix in matrices.items() if matrix.kind == "linear" and not NUMBER.search(name)
        }
        self.fronts = dict(self._fronts(modules))
        self.vocabularies = self._tables()
        if not self.vocabularies:
            self.vocabularies = self._likely_tables()
            self.likely = bool(self.vocabularies)
        kernels = {module.name: len(_kernel(module)) for module in modules if module.name in self.fronts}
        # One channel of an image may be its only one, too.
        self._reads_waves = any(kernels[name] == 3 for name, read in self.fronts.items() if read == "audio")
        self._with_vocabulary = {"", *(place for name in self.vocabularies for place in ancestors(name))}
        ends = {word for name in matrices for word in name.split(".")[:2]}
        self._writes_sound = any(_writes(module, 3, 1) and not spoken.get(module.name) for module in modules)
        self._writes_pixels = {"encoder", "decoder"} <= ends and any(_writes(module, 4, _COLORS) for module in modules)
        self._conformer = any(self._is_conformer(module) for module in modules)

    def _tables(self) -> dict[str, Shape]:
        """Tables of tokens."""
        tables = {
            name: matrix.shape
            for name, matrix in self._matrices.items()
            if matrix.component in ("", "text") and self._is_vocabulary(matrix) and not _CODEBOOK.search(name)
        }
        headed = {shape[1] for shape in tables.values() if shape in self._heads}
        # Beside a table with a head, one of another width that no word calls tokens is of positions.
        return {
            name: shape
            for name, shape in tables.items()
            if not headed or shape[1] in headed or self._matrices[name].role.part == "token"
        }

    def _likely_tables(self) -> dict[str, Shape]:
        """Tables under unknown names, which look like linear layers where no class is known.

        A head for logits says as much, but not in a model of one stack: that may hear and spell.
        """
        return {
            name: matrix.shape
            for name, matrix in self._matrices.items()
            if matrix.kind == "linear" and matrix.component in ("", "text") and not NUMBER.search(name)
            if (matrix.guess or (matrix.role.part == "lm" and len(self._stacks) > 1))
            and matrix.shape[0] >= max(_SMALLEST_LIKELY, 4 * matrix.shape[1])
        }

    @property
    def work(self) -> int:
        """Comparisons of fronts and vocabularies with stacks."""
        return (len(self.fronts) + len(self.vocabularies)) * len(self._all_stacks)

    @property
    def has_named_towers(self) -> bool:
        return any(matrix.component in ("vision", "audio") for matrix in self._matrices.values())

    @property
    def has_lm_head(self) -> bool:
        return any(shape in self._heads for shape in self.vocabularies.values())

    def _fronts(self, modules: Sequence[Module]) -> Iterator[tuple[str, str]]:
        widths = {side for sides in self._stacks.values() for side, _ in sides.most_common(1)}
        for module in modules:
            weight = _kernel(module)
            if module.kind != "conv" or len(weight) < 3 or set(weight[2:]) == {1}:
                continue
            channels = weight[1] * module.groups
            if len(weight) > 3 and channels == _COLORS:
                yield module.name, "vision"
            elif self._reads_sound(module.name, weight, channels, widths):
                yield module.name, "audio"

    def _reads_sound(self, name: str, weight: Shape, channels: int, widths: set[int]) -> bool:
        if any(place in self._linear_places for place in ancestors(name) if NUMBER.fullmatch(place.rpartition(".")[2])):
            return False  # a convolution of a layer
        if len(weight) > 3:
            return channels == 1 and weight[0] >= _FEWEST_BANDS
        return channels == 1 or (channels >= _FEWEST_BANDS and channels not in widths and channels < weight[0])

    def _is_conformer(self, module: Module) -> bool:
        weight = _kernel(module)
        return module.kind == "conv" and len(weight) == 3 and weight[1] == 1 and weight[2] > _LONGEST_CAUSAL

    def _is_vocabulary(self, matrix: Matrix) -> bool:
        if not matrix.guess and matrix.role.block == "embedding" and matrix.role.part:
            return matrix.role.part == "token" and len(matrix.shape) == 2
        if matrix.kind != "embedding":
            return False
        rows, columns = matrix.shape
        if columns < _NARROWEST or matrix.role.part == "query":
            return False
        side = int(rows**0.5)
        if side * side in (rows, rows - 1) and side < _LARGEST_GRID:
            return False
        return rows >= _SMALLEST_VOCABULARY or (rows >= _FEWEST_TOKENS and (rows, columns) in self._heads)

    def whole(self, model_type: str) -> Component:
        """The component of a model without a vocabulary, and whether it is sure; empty where nothing shows."""
        parts = {matrix.role.part for matrix in self._matrices.values() if matrix.role.block == "embedding"}
        if "time" in parts or any(
            matrix.role.block == "modulation" and matrix.kind == "linear" for matrix in self._matrices.values()
        ):
            return "diffusion", True
        by_type = next((kind for word in re.split(r"[-_]", model_type) if (kind := lexicon.MODEL_TYPES.get(word))), "")
        read = set(self.fronts.values())
        if self._writes_sound or ("vision" in read and self._writes_pixels):
            return "codec", True
        if "vision" in read or ("patch" in parts and by_type != "audio"):
            return "vision", True
        if by_type or not read:
            return by_type or ("audio" if self._conformer else ""), True
        return "audio", self._conformer or self._reads_waves

    def widest_without_vocabulary(self, front: str) -> str:
        """The largest module around a front that holds no vocabulary."""
        return self._widest(front, self._with_vocabulary)

    def _widest(self, name: str, without: Iterable[str]) -> str:
        place = ""
        for around in ancestors(name):
            if around in without:
                break
            place = around
        return place

    def has_stack(self, place: str) -> bool:
        """Layers stand in a module."""
        return any(_within(stack, place) for stack in self._all_stacks)

    def has_codes(self, place: str) -> bool:
        """A table of codes stands in a module."""
        return any(_within(name, place) and _CODEBOOK.search(name) for name in self._matrices)

    def leaves_text(self, towers: Mapping[str, Component]) -> bool:
        """Something that a vocabulary leads to is left beside the towers."""
        beside = {place for name in self.vocabularies for place in (name, *ancestors(name))}
        return bool(self.text_stacks(towers)) or any(
            matrix.kind != "embedding" and not beside.isdisjoint(ancestors(name))
            for name, matrix in self._matrices.items()
            if not any(_within(name, tower) for tower in towers)
        )

    def text_stacks(self, towers: Mapping[str, Component]) -> set[str]:
        """Stacks outside of the towers that a vocabulary leads to."""
        free = {stack for stack in self._free if not any(_within(stack, tower) for tower in towers)}
        kept: set[str] = set()
        for name, shape in self.vocabularies.items():
            for around in (*ancestors(name), ""):
                beside = {stack for stack in free if _within(stack, around)}
                if beside:
                    kept |= {stack for stack in beside if self._has_width(stack, shape[1])} or beside
                    break
        return kept

    def _has_width(self, stack: str, width: int) -> bool:
        sides = self._stacks[stack]
        return sides[width] >= _SAME_WIDTH * sides.most_common(1)[0][1]

    def further_stacks(self, towers: Mapping[str, Component]) -> dict[str, Component]:
        """Places of stacks that no vocabulary leads to and that have another width than the text model."""
        text = self.text_stacks(towers)
        widths = {shape[1] for shape in self.vocabularies.values()}
        taken = self._with_vocabulary | {place for stack in text for place in (stack, *ancestors(stack))}
        places: dict[str, Component] = {}
        for stack in self._free - text:
            if any(_within(stack, tower) for tower in towers) or any(self._has_width(stack, w) for w in widths):
                continue
            place = self._widest(f"{stack}.0", taken)
            if place:
                places[place] = ("connector" if self.has_lm_head else "vision", False)
        return places

    def connectors(self, towers: Mapping[str, Component]) -> dict[str, Component]:
        """Places outside of stacks that read a tower's width and write the text model's."""
        text = self.text_stacks(towers)
        if not text:
            return {}
        wide = {self._stacks[stack].most_common(1)[0][0] for stack in text}
        own = {side for stack in text for side in self._stacks[stack]}
        taken = self._with_vocabulary | {place for stack in text for place in (stack, *ancestors(stack))}
        groups: dict[str, list[Shape]] = {}
        read: set[int] = set()
        for name, matrix in self._matrices.items():
            tower = any(place in towers for place in ancestors(name))
            if tower or matrix.component in ("vision", "audio"):
                read.update(matrix.shape[-2:] if NUMBER.search(name) else ())
            elif text.isdisjoint((name, *ancestors(name))) and self._may_connect(matrix):
                place = self._widest(f"{name}.0", taken)
                if place:
                    groups.setdefault(place, []).append(matrix.shape)
        return {
            place: ("connector", False)
            for place, shapes in groups.items()
            if any(shape[1] not in own and _folds(shape[1], read - wide) for shape in shapes)
            and any(shape[0] in wide for shape in shapes)
        }

    def _may_connect(self, matrix: Matrix) -> bool:
        return matrix.kind in ("linear", "multihead_attention") and not matrix.component and matrix.role.block != "head"


def _kernel(module: Module) -> Shape:
    return dict(module.parameters).get("weight", ()) or dict(module.computed).get("weight", ())


def _writes(module: Module, dimensions: int, channels: int) -> bool:
    """A convolution whose output is a wave or an image."""
    weight = _kernel(module)
    return (
        module.kind == "conv"
        and len(weight) == dimensions
        and weight[0] == channels
        and weight[1] > channels
        and set(weight[2:]) != {1}
    )


def _folds(side: int, widths: Iterable[int]) -> bool:
    return any(side % width == 0 and side // width <= _MOST_FOLDED for width in widths)


def _within(name: str, place: str) -> bool:
    return not place or name == place or name.startswith(f"{place}.")
