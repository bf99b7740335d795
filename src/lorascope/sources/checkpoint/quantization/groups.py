"""Groups of tensors that store one packed weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.checkpoint.quantization.settings import Settings
from lorascope.sources.checkpoint.types import Tensor

FLOATS = ("BF16", "F16", "F32", "F64")
FP8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
# Scales of the MX formats (OCP Microscaling 1.0): a power of two in a byte, as its own dtype or as a plain byte.
EXPONENTS = ("F8_E8M0", "U8")


class MisfitError(Exception):
    """A group's tensors do not fit; the message lacks its name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """One weight as it is stored.

    Attributes:
        name: What it would be called without packing.
        stem: What the names of its tensors begin with.
        parts: Its tensors by the ends of their names.
        data: The bytes of those whose data says something, by the same ends.
    """

    name: str
    stem: str
    parts: Mapping[str, Tensor]
    data: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def part(self, end: str, dtypes: Iterable[str], dimensions: Iterable[int]) -> Tensor:
        """A tensor of the group that must be there.

        Args:
            end: The end of its name.
            dtypes: What it may be stored as.
            dimensions: How many it may have.

        Raises:
            MisfitError: It is not there, or something else.
        """
        tensor = self.parts.get(end)
        if tensor is None:
            raise MisfitError(f"has no {self.stem.rpartition('.')[2]}{end} beside it")
        if tensor.dtype not in dtypes:
            raise MisfitError(f"has {described(tensor)}, which must be {' or '.join(dtypes)}")
        if len(tensor.shape) not in dimensions:
            raise MisfitError(
                f"has {described(tensor)}, which must have {' or '.join(map(str, dimensions))} dimensions"
            )
        return tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """One way of packing, known by the end of a name.

    Attributes:
        anchor: That end.
        numbers: The end of the tensor that holds the packed numbers.
        others: The ends of the tensors that may come with it.
        logical: The end of the name without packing.
        recover: From a group to its logical shape and its quantization (empty where the numbers turn out to be plain).
        data: The ends of those whose bytes `recover` needs, few enough to be read.
        packed: The dtypes of the numbers that make it this family; with any other, the tensors are none of its business.
            Empty where the anchor alone decides.
    """

    anchor: str
    numbers: str
    others: tuple[str, ...]
    logical: str
    recover: Callable[[Group, Settings], tuple[tuple[int, ...], str]]
    data: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()


def described(tensor: Tensor) -> str:
    """A tensor for a message: name, dtype, shape."""
    return f"{tensor.name.rpartition('.')[2]} {tensor.dtype} {list(tensor.shape)}"


def pieces(whole: int, size: int) -> int:
    """Number of pieces of a size, the last perhaps not full."""
    return -(-whole // size)
