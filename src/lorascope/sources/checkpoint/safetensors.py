"""Opens a checkpoint: configuration, index and headers, which must agree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.gc_paused import no_collection
from lorascope.sources.checkpoint.index import DAMAGED, SHARD, Index
from lorascope.sources.checkpoint.tensor_table import Header, TensorTable
from lorascope.sources.checkpoint.types import Checkpoint, Files, Span
from lorascope.sources.files.json_files import read_bounded, read_object
from lorascope.sources.files.json_text import first_faults
from lorascope.sources.files.safetensors_header import MOST_TENSORS, parse_header
from lorascope.sources.transformers.foreign_config import MOST_CONFIG_BYTES, MOST_VALUES

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# diffusers calls them so, and reads a variant (half precision, mostly) where its name is asked for.
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
DIFFUSERS_INDEX = "diffusion_pytorch_model.safetensors.index.json"
_DIFFUSERS_VARIANT = re.compile(r"diffusion_pytorch_model\.(\w+\.safetensors|safetensors\.index\.\w+\.json)", re.ASCII)
# What huggingface_hub reads of one header; safetensors itself takes 100 MB. A million tensors are 130 MB.
LONGEST_HEADER = 25_000_000
MOST_HEADERS = 150_000_000
MOST_INDEX_BYTES = 64 * 2**20
# Holds most headers whole, so that a second request is the exception.
_FIRST_READ = 100_000
_LFS = b"version https://git-lfs"
_LONGEST_POINTER = 1_024

# Why what lies in a folder without weights is not read, and what to do. The first that matches a name is told.
_CONVERT = (
    "Convert them where you trust them: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW), or for the Hub "
    "https://huggingface.co/spaces/safetensors/convert. Without that, --source config builds the model from config.json."
)
_OTHERS = (
    (
        r"adapter_(model\.(safetensors|bin)|config\.json)",
        "an adapter, not a model",
        "Check it against its base model: lorascope check MODEL ADAPTER",
    ),
    (
        r"consolidated[\w.-]*\.safetensors",
        "Mistral's own format, whose names are not those of transformers",
        "Give the same model in transformers' format; where there is none, --source config builds it from config.json.",
    ),
    (
        r"model-\d+-of-\d+\.safetensors",
        f"shards without their {INDEX}",
        f"Download {INDEX} of the same model into the folder.",
    ),
    (
        r"model\..+\.safetensors|model\.safetensors\.index\..+\.json",
        "a variant, which transformers reads only where its name is asked for",
        f"Save it as {WEIGHTS}: from_pretrained(FOLDER, variant=NAME).save_pretrained(NEW).",
    ),
    (
        r"diffusion_pytorch_model\.(bin|bin\.index\.json|fp16\.bin)",
        "a diffusers model's pickle files, which can run code and are never opened",
        "Convert them where you trust them: MODEL_CLASS.from_pretrained(FOLDER).save_pretrained(NEW). Without that, "
        "--source config builds the model from config.json.",
    ),
    (
        r"diffusion_pytorch_model.*",
        "a part of a model of diffusers",
        f"Download all its files: {DIFFUSERS_WEIGHTS}, or {DIFFUSERS_INDEX} and its shards.",
    ),
    (r".+\.gguf", "a GGUF file", "Give the file itself, or the folder of the original model."),
    (r".+\.safetensors", "safetensors files of other names", f"Rename the file to {WEIGHTS} if it is the whole model."),
    (
        r".+\.(bin|bin\.index\.json|pt|pth|ckpt|pkl|pickle)",
        "pickle files, which can run code and are never opened",
        _CONVERT,
    ),
    (
        r".+\.(h5|msgpack|onnx|npz|tflite|mlmodel)",
        "a format of another framework",
        "Give the model in safetensors, or --source config to build it from config.json.",
    ),
)


def has_weights(files: Files) -> bool:
    """It has safetensors files under the names of transformers or diffusers."""
    names = (WEIGHTS, INDEX, DIFFUSERS_WEIGHTS, DIFFUSERS_INDEX)
    return not files.names.isdisjoint(names) or bool(_variants(files))


@no_collection()
def open_checkpoint(files: Files) -> Checkpoint:
    """Open a checkpoint: its configuration and all headers.

    As transformers does, it takes the file that the configuration names in `transformers_weights`, else
    `model.safetensors`, else what `model.safetensors.index.json` lists.

    Raises:
        LorascopeError: There is no configuration or no such file, or one of them is broken; with all faults of it.
    """
    config = _config(files)
    is_diffusers = "_class_name" in config
    chosen = _diffusers_file(files) if is_diffusers else _chosen(files, config.get("transformers_weights"))
    index = None
    if chosen.endswith(".json"):
        text = read_bounded(files, chosen, MOST_INDEX_BYTES, DAMAGED)
        index = Index(text, f"{files.where}: {chosen}", files.names)
    parsed = _read(files, index.shards if index else [chosen])
    tensors = TensorTable(parsed.headers)
    # Where every tensor is in the file that the index says, none is in two.
    if parsed.faults or not 0 < len(tensors) <= MOST_TENSORS or (index and not index.agrees(tensors)):
        faults = first_faults(index.disagreements(tensors)) if index else []
        _require_sound(parsed, files.where)
        if not tensors:
            faults.append("holds no tensors")
        if faults:
            raise LorascopeError(*faults, where=f"{files.where}: {chosen}", hint=DAMAGED)
    return Checkpoint(files, config, tensors)


@no_collection()
def read_headers(files: Files, shards: Sequence[str]) -> TensorTable:
    """All tensors of some safetensors files, from their headers alone.

    The files are asked for their bytes twice at most: once for the beginnings of all, once for what is missing of long
    headers.

    Args:
        files: Where the bytes come from.
        shards: Which of its files to read.

    Raises:
        LorascopeError: A file is not a sound safetensors file, the headers are too large, or a tensor is in two files; with
            the first ten faults of all files.
    """
    parsed = _read(files, shards)
    _require_sound(parsed, files.where)
    return TensorTable(parsed.headers)


def is_pointer(files: Files, name: str) -> bool:
    """A file of a checkout without Git LFS: it only says which file would be there."""
    return files.size(name) < _LONGEST_POINTER and files.read([Span(name, 0, len(_LFS))]) == [_LFS]


class _Parsed(NamedTuple):
    """Headers in file order, with the faults of each.

    Faults of files without a header come under an empty name.
    """

    headers: list[Header]
    faults: dict[str, list[str]]


def _read(files: Files, shards: Sequence[str]) -> _Parsed:
    texts, missing = _texts(files, shards)
    parsed = _Parsed([], {"": missing} if missing else {})
    count = 0
    for file in list(texts):
        header, faults = parse_header(texts.pop(file), file, files.size(file))
        parsed.headers.append(header)
        parsed.faults.update({file: faults} if faults else {})
        count += len(header.names)
        if count > MOST_TENSORS:
            break
    return parsed


def _require_sound(parsed: _Parsed, where: str) -> None:
    """Refuse headers with faults, and tensors that are in two files.

    Raises:
        LorascopeError: With the first ten faults.
    """
    faults = first_faults([*parsed.faults.get("", ()), *_faults(parsed)])
    if faults:
        damaged = "git lfs pull fetches the files themselves." if "Git LFS" in "".join(faults) else DAMAGED
        raise LorascopeError(*faults, where=where, hint=damaged)


def _faults(parsed: _Parsed) -> Iterator[str]:
    places: dict[str, str] = {}
    for header in parsed.headers:
        yield from (f"{header.file}: {fault}" for fault in parsed.faults.get(header.file, ()))
        if not places.keys().isdisjoint(header.names):
            for name in sorted(places.keys() & header.names):
                yield f"the tensor {quoted(name)} is in {places[name]} and in {header.file}"
        places |= dict.fromkeys(header.names, header.file)
        if len(places) > MOST_TENSORS:
            yield f"there are more than {MOST_TENSORS} tensors"
            return


def _texts(files: Files, shards: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """Headers of the files, without their length, and faults."""
    first = min(_FIRST_READ, MOST_HEADERS // max(1, len(shards)))
    fronts = dict(zip(shards, files.read([Span(shard, 0, first) for shard in shards]), strict=True))
    ends: dict[str, int] = {}
    faults = []
    for shard, front in fronts.items():
        end = 8 + int.from_bytes(front[:8], "little")
        if front.startswith(_LFS):
            faults.append(f"{shard}: is a pointer of Git LFS, not the file")
        elif len(front) < 10:
            faults.append(f"{shard}: has {len(front)} bytes, too few for a safetensors file")
        elif end > 8 + LONGEST_HEADER:
            faults.append(
                f"{shard}: is not a safetensors file: a header of {end - 8} bytes, more than {LONGEST_HEADER}"
            )
        else:
            ends[shard] = end
    if sum(ends.values()) > MOST_HEADERS:
        return {}, [f"headers of {sum(ends.values())} bytes, more than {MOST_HEADERS}"]
    longer = [Span(shard, first, end) for shard, end in ends.items() if end > first == len(fronts[shard])]
    rest = dict(zip((span.file for span in longer), files.read(longer) if longer else (), strict=True))
    texts = {shard: (fronts.pop(shard) + rest.get(shard, b""))[8:end] for shard, end in ends.items()}
    for shard, end in ends.items():
        if len(texts[shard]) < end - 8:
            got = 8 + len(texts.pop(shard))
            faults.append(f"{shard}: ends at byte {got}, within its header of {end - 8} bytes")
    return texts, faults


def _config(files: Files) -> Mapping[str, Any]:
    if "config.json" not in files.names:
        fault, hint = _why_not(files)
        raise LorascopeError(f"there is no config.json; {fault}", where=files.where, hint=hint)
    hint = "Is this a model's config.json?"
    return read_object(files, "config.json", MOST_CONFIG_BYTES, hint, most_values=MOST_VALUES)


def _chosen(files: Files, named: object) -> str:
    """The file of weights, or the index of them."""
    if isinstance(named, str) and named in files.names and SHARD.fullmatch(named.removesuffix(".index.json")):
        return named
    if named is not None:
        raise LorascopeError(
            f"transformers_weights is {quoted(named)}, no safetensors file or index at its root",
            where=f"{files.where}: config.json",
            hint="Correct it there, or download that file.",
        )
    for name in (WEIGHTS, INDEX):
        if name in files.names:
            return name
    fault, hint = _why_not(files)
    raise LorascopeError(f"there is no {WEIGHTS} and no {INDEX}; {fault}", where=files.where, hint=hint)


def _diffusers_file(files: Files) -> str:
    """The file of a diffusers model's weights, the index of them, or the only variant."""
    for name in (DIFFUSERS_WEIGHTS, DIFFUSERS_INDEX, WEIGHTS, INDEX):
        if name in files.names:
            return name
    variants = _variants(files)
    if len(variants) == 1:
        return variants[0]
    if variants:
        raise LorascopeError(
            f"there is no {DIFFUSERS_WEIGHTS}, and several variants: {_listed(variants)}",
            where=files.where,
            hint=f"Rename the one that you mean to {DIFFUSERS_WEIGHTS} (an index to {DIFFUSERS_INDEX}).",
        )
    fault, hint = _why_not(files)
    raise LorascopeError(
        f"there is no {DIFFUSERS_WEIGHTS} and no {DIFFUSERS_INDEX}; {fault}", where=files.where, hint=hint
    )


def _variants(files: Files) -> list[str]:
    """Whole variants of a diffusers model's weights; an index stands for its shards."""
    return sorted(name for name in files.names if _DIFFUSERS_VARIANT.fullmatch(name))


def _why_not(files: Files) -> tuple[str, str]:
    """What is there instead of a checkpoint, with a hint."""
    for pattern, what, hint in () if has_weights(files) else _OTHERS:
        matches = sorted(name for name in files.names if re.fullmatch(pattern, name))
        if matches:
            return f"it has {what}: {_listed(matches)}", hint
    listed = f"it has {_listed(sorted(files.names))}" if files.names else "it has no files"
    return (
        listed,
        "Give a folder with the config.json and the safetensors files of a model, or a model type such as mistral.",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(quoted, names[:4])) + more
