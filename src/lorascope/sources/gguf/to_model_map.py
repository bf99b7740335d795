"""Maps the model that a GGUF file was made from."""

from __future__ import annotations

from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.model.classify import assemble
from lorascope.model.role_names import parse_role
from lorascope.model.shapes import separate_misshapen, shape_notes
from lorascope.model.types import ModelMap
from lorascope.sources.checkpoint.from_names import modules_from_names
from lorascope.sources.checkpoint.to_model_map import by_reason, map_checkpoint
from lorascope.sources.dimensions import checked_dimensions
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.gguf_header import Gguf, read_gguf
from lorascope.sources.gguf.names import GgufCheckpoint, gguf_role, original_checkpoint


def map_gguf(path: Path, *, head: str = "") -> ModelMap:
    """The map of the original model, or of the file's names.

    Args:
        path: The file; of several parts, the first.
        head: The head that the user asks for.

    Raises:
        LorascopeError: It is not a sound GGUF file, or holds no model.
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
    original = original_checkpoint(header)
    missing = by_reason(original.absent, "not in the file")
    notes = (*original.notes, *missing, *by_reason(original.dropped, "not part of the original"))
    if original.names_only:
        return _by_vocabulary(original, name, head, notes)
    return map_checkpoint(
        original.tensors,
        original.config,
        model=name,
        head=head,
        source="gguf",
        notes=notes,
        unexplained=original.unexplained,
    )


def _by_vocabulary(original: GgufCheckpoint, name: str, head: str, notes: tuple[str, ...]) -> ModelMap:
    if head:
        raise LorascopeError("the file's architecture is not known, and so neither are its heads", where=name)
    named = modules_from_names(original.tensors)
    modules, misshapen = separate_misshapen(named.modules)
    misshapen |= {
        name: tensor.shape for name, tensor in original.tensors.items() if gguf_role(name) and len(tensor.shape) < 2
    }
    roles = {tensor.removesuffix(".weight"): role for tensor in original.tensors if (role := gguf_role(tensor))}
    weights = assemble(modules, {tensor: (parse_role(role), False) for tensor, role in roles.items()})
    size = sum(tensor.size for tensor in original.tensors.values())
    dimensions, contradicted = checked_dimensions(
        original.config.get, original.config, weights, modules, size, "the metadata"
    )
    return ModelMap(
        model=name,
        model_type=str(original.config.get("model_type") or ""),
        architecture="",
        head="unknown",
        source="gguf",
        versions={},
        dimensions=dimensions,
        modules=modules,
        weights=weights,
        root_parameters=named.root_parameters,
        refusal="the names that these weights have in the original model are not known",
        notes=(*contradicted, *shape_notes(misshapen, modules), *notes, *named.notes),
        basis="names",
        unexplained=(*original.unexplained, *misshapen),
    )
