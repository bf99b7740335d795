"""Maps the model that a GGUF file was made from."""

from __future__ import annotations

from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.model.classify import assemble, parse_role
from lorascope.model.shapes import separate_misshapen, shape_notes
from lorascope.model.types import ModelMap
from lorascope.sources.checkpoint.from_names import modules_from_names
from lorascope.sources.checkpoint.to_model_map import by_reason, map_checkpoint
from lorascope.sources.dimensions import checked_dimensions
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.gguf_header import Gguf, read_gguf
from lorascope.sources.gguf.names import GgufCheckpoint, gguf_role, original


def map_gguf(path: Path, *, head: str = "") -> ModelMap:
    """The map of the original model, or of the file's names.

    Args:
        path: The file; of several parts, the first.
        head: The head that the user asks for.

    Raises:
        LorascopeError: It is no sound GGUF file, or holds no model.
    """
    return map_header(read_gguf(open_folder(path.parent), path.name), str(path), head=head)


def map_header(header: Gguf, name: str, *, head: str = "") -> ModelMap:
    """The map of a header.

    Args:
        header: The header.
        name: What the user calls the file.
        head: The head that the user asks for.

    Raises:
        LorascopeError: It holds no model.
    """
    found = original(header)
    missing = by_reason(found.absent, "not in the file")
    notes = (*found.notes, *missing, *by_reason(found.dropped, "not part of the original"))
    if found.names_only:
        return _by_vocabulary(found, name, head, notes)
    return map_checkpoint(
        found.tensors,
        found.config,
        model=name,
        head=head,
        source="gguf",
        notes=notes,
        unexplained=found.unexplained,
    )


def _by_vocabulary(found: GgufCheckpoint, name: str, head: str, notes: tuple[str, ...]) -> ModelMap:
    if head:
        raise LorascopeError("the file's architecture is not known, and so neither are its heads", where=name)
    reading = modules_from_names(found.tensors)
    modules, misshapen = separate_misshapen(reading.modules)
    misshapen |= {
        name: tensor.shape for name, tensor in found.tensors.items() if gguf_role(name) and len(tensor.shape) < 2
    }
    roles = {tensor.removesuffix(".weight"): role for tensor in found.tensors if (role := gguf_role(tensor))}
    weights = assemble(modules, {tensor: (parse_role(role), False) for tensor, role in roles.items()})
    size = sum(tensor.size for tensor in found.tensors.values())
    dimensions, contradicted = checked_dimensions(
        found.config.get, found.config, weights, modules, size, "the metadata"
    )
    return ModelMap(
        model=name,
        model_type=str(found.config.get("model_type") or ""),
        architecture="",
        head="unknown",
        source="gguf",
        versions={},
        dimensions=dimensions,
        modules=modules,
        weights=weights,
        root_parameters=reading.root_parameters,
        refusal="the names that these weights have in the original model are not known",
        notes=(*contradicted, *shape_notes(misshapen, modules), *notes, *reading.notes),
        basis="names",
        unexplained=(*found.unexplained, *misshapen),
    )
