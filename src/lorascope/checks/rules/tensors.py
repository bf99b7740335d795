"""What is wrong with the tensors of a saved adapter: missing, of other names, of other sizes, of another rank.

What PEFT does on loading was measured with 0.21.2: it raises on another shape and on a missing copy of a module, it
warns of missing factors and leaves them as they are initialized, and all else that it has no place for it ignores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case
from lorascope.checks.loaded_names import Arrival, arrivals
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal, quoted
from lorascope.names import listed
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.state_dict import PREFIX, SavedTensor, SavedTensors, base_tensor_names, saved_tensors
from lorascope.plans.name_forms import shortest_endings
from lorascope.sources.checkpoint.types import Tensor

_MOST_NAMED = 6
# Real files have one or two; a hostile one has as many as it likes.
_MOST_CAUSES = 8
_FACTORS = ("down", "up", "magnitude", "up_bias")
_ADAPTER_NAME = re.compile(
    r"(\.lora_(?:(?:embedding_)?[AB]|magnitude_vector))\.(?!(?:weight|bias)$)([^.]+)(\.(?:weight|bias))?$"
)
_COPY_NAME = re.compile(r"\.modules_to_save\.[^.]+\.")
_OF_FACTOR = re.compile(r"\.lora_(?:(?:embedding_)?[AB]|magnitude_vector)(?:\.|$)")
_MAGNITUDE = ".lora_magnitude_vector"
# Endings of other programs' names for the factors, with the program: mlx-lm 0.32.2, tuner/lora.py; torchtune 0.6.1,
# modules/peft/lora.py; kohya's and diffusers' older form.
_OTHERS = (
    (re.compile(r".*\.lora_[ab]$"), "mlx-lm, whose factors are also transposed"),
    (re.compile(r".*\.lora_[ab]\.weight$|.*\.magnitude$"), "torchtune"),
    (re.compile(r".*\.lora[._](?:down|up)\.weight$"), "image generation (kohya, diffusers)"),
)
_RESAVE = "Save it anew with PEFT's save_pretrained, or rename the tensors in the file."


@dataclasses.dataclass(frozen=True, slots=True)
class _Cause:
    """Why PEFT has no place for some tensors of the file.

    Attributes:
        message: What is so, after "… tensors ".
        fix: What to do.
        severity: As `Finding.severity`.
        effect: What PEFT does with them.
    """

    message: str
    fix: str
    severity: Severity = "error"
    effect: str = "PEFT ignores them silently"


def tensor_findings(case: Case, tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    """What differs between an adapter's file and what PEFT would have saved under its configuration, by kind and cause.

    Nothing is found in what PEFT itself saved for this model, nor where PEFT refuses the configuration.

    Args:
        case: The configuration on the model.
        tensors: Those of `adapter_model.safetensors`, as its header has them.
    """
    if case.resolution.error:
        return
    compared = _Comparison(case, tensors)
    yield from compared.sizes()
    yield from compared.names()
    yield from compared.gaps()
    yield from compared.conversions()


def other_sizes(case: Case, tensors: Mapping[str, Tensor]) -> int:
    """How many tensors of a file are of other in or out features than the model's weights, ranks aside."""
    return 0 if case.resolution.error else len(_Comparison(case, tensors).other_sizes)


@dataclasses.dataclass(frozen=True)
class _Mismatch:
    """A tensor that is there, in another shape."""

    wanted: SavedTensor
    shape: tuple[int, ...]


class _Comparison:
    """A file beside what it should hold."""

    def __init__(self, case: Case, tensors: Mapping[str, Tensor]) -> None:
        self.case = case
        self.model = case.model
        self.wanted: SavedTensors = saved_tensors(case.model, case.config, case.resolution, case.peft or NEWEST)
        self.seen = arrivals(case.model, tensors)
        self.found: dict[str, Arrival] = {}
        self.mismatches: list[_Mismatch] = []
        self.odd: list[Arrival] = []
        for arrival in self.seen.tensors.values():
            self._take(arrival)

    def _take(self, arrival: Arrival) -> None:
        wanted = self._wanted(arrival.name)
        if wanted is not None:
            self.found[wanted.name] = arrival
            if wanted.shape != arrival.shape:
                self.mismatches.append(_Mismatch(wanted, arrival.shape))
        elif not self._may_be(arrival.name):
            self.odd.append(arrival)

    def _wanted(self, name: str) -> SavedTensor | None:
        table = self.wanted.tensors
        # PEFT takes the magnitudes under both names.
        for spelling in (name, name.removesuffix(".weight"), f"{name}.weight"):
            if (spelling == name or _MAGNITUDE in name) and spelling in table:
                return table[spelling]
        return self.wanted.vocabulary.get(name)

    def _copied(self, name: str) -> bool:
        """It lies in a module that is saved whole."""
        return any(name.startswith(f"{copy}.") for copy in self.wanted.copies)

    def _may_be(self, name: str) -> bool:
        """A tensor that PEFT saves too and that a map cannot know: a buffer of a copied module, an odd bias."""
        if self._copied(name) and not (self.wanted.exact and _COPY_NAME.search(name)):
            return True
        # Up to 0.20 whatever has "bias" in its name was saved, buffers too.
        return self.case.config.bias == "all" and "bias" in name and not _OF_FACTOR.search(name)

    # Shapes.

    def _rank_of(self, mismatch: _Mismatch) -> int | None:
        """The rank in the file, where that is all that differs."""
        wanted, shape, side = mismatch.wanted, mismatch.shape, mismatch.wanted.rank_side
        if side is None or len(shape) != len(wanted.shape) or not wanted.rank:
            return None
        if any(a != b for at, (a, b) in enumerate(zip(shape, wanted.shape, strict=True)) if at != side):
            return None
        each = wanted.shape[side] // wanted.rank
        return shape[side] // each if shape[side] and shape[side] % each == 0 else None

    def _tokens_of(self, mismatch: _Mismatch) -> tuple[int, int] | None:
        """Rows of the vocabulary in the file and in the model, where that is all that differs."""
        wanted, shape = mismatch.wanted, mismatch.shape
        if wanted.owner not in (self.model.input_embeddings, self.model.output_embeddings):
            return None
        rows = next((s[0] for name, s in self.model.module_by_name[wanted.owner].parameters if name == "weight"), 0)
        if len(shape) != len(wanted.shape):
            return None
        differing = [(a, b) for a, b in zip(shape, wanted.shape, strict=True) if a != b]
        return differing[0] if len(differing) == 1 and differing[0][1] == rows else None

    @cached_property
    def other_sizes(self) -> list[_Mismatch]:
        """The mismatches that are neither of the rank nor of the vocabulary nor of what was never gathered."""
        return [
            one
            for one in self.mismatches
            if self._rank_of(one) is None and self._tokens_of(one) is None and not _ungathered(one)
        ]

    def sizes(self) -> Iterator[Finding]:
        """Findings on shapes, all of which make PEFT raise."""
        empty = [one for one in self.mismatches if _ungathered(one)]
        if empty:
            yield Finding(
                "tensor-shape",
                "error",
                _owners(one.wanted for one in empty),
                f"{_tensors(len(empty))} have one dimension or none of some size, such as "
                f"{_short(empty[0].wanted.name)} of {list(empty[0].shape)}: shards of DeepSpeed ZeRO-3 or FSDP that were "
                "not gathered before saving. PEFT raises on loading.",
                "Their numbers are not in the file. Gather the parameters and save again (PEFT names the calls when it "
                "saves such tensors), or convert the training's own checkpoint.",
            )
        yield from self._ranks()
        resized: dict[tuple[int, int], list[SavedTensor]] = {}
        for one in self.mismatches:
            if rows := self._tokens_of(one):
                resized.setdefault(rows, []).append(one.wanted)
        for (here, there), tensors in resized.items():
            yield Finding(
                "tensor-shape",
                "error",
                _owners(tensors),
                f"The file has a vocabulary of {here} tokens, the model one of {there}: the embeddings were resized in "
                "training, and PEFT raises on loading.",
                f"Resize the model first: model.resize_token_embeddings({here}), or give the base with that vocabulary.",
            )
        if self.other_sizes:
            examples = ", ".join(
                f"{_short(one.wanted.name)} {list(one.shape)} where this model has {list(one.wanted.shape)}"
                for one in {_short(one.wanted.name): one for one in self.other_sizes}.values()
            )
            yield Finding(
                "tensor-shape",
                "error",
                _owners(one.wanted for one in self.other_sizes),
                f"{_tensors(len(self.other_sizes))} of {len(self.found)} are of other sizes than this model's weights: "
                f"{_cut(examples)}. PEFT raises on loading (size mismatch).",
                f"Give the base that it was trained on{self._named_base()}.",
            )

    def _ranks(self) -> Iterator[Finding]:
        ranks: dict[tuple[int, int], list[SavedTensor]] = {}
        for one in self.mismatches:
            rank = self._rank_of(one)
            if rank is not None and self._tokens_of(one) is None and not _ungathered(one):
                ranks.setdefault((rank, one.wanted.rank), []).append(one.wanted)
        for (rank, configured), tensors in ranks.items():
            owners = {tensor.owner for tensor in tensors}
            fix = f'Set "r": {rank} in adapter_config.json.'
            if owners != self._adapted or self.case.config.rank_pattern:
                keys = shortest_endings(sorted(owners), self._adapted, numbers=False) or sorted(owners)
                shown = ", ".join(f"{literal(key)}: {rank}" for key in keys[:_MOST_NAMED])
                fix = (
                    f"Say so in rank_pattern of adapter_config.json: {shown}{', …' if len(keys) > _MOST_NAMED else ''}."
                )
            yield Finding(
                "tensor-rank",
                "error",
                _owners(tensors),
                f"{_weights(len(owners))} have rank {rank} in the file and {configured} by the configuration: PEFT raises "
                "on loading (size mismatch).",
                f"{fix} The scale is lora_alpha / r: see that it is what was trained.",
            )

    def _named_base(self) -> str:
        name = self.case.given.get("base_model_name_or_path")
        return f": {quoted(name)} by its configuration" if isinstance(name, str) and name else ""

    # Names.

    @cached_property
    def _adapted(self) -> frozenset[str]:
        """The adapted weights."""
        return frozenset(one.owner for one in self.wanted.tensors.values() if one.part in _FACTORS)

    @cached_property
    def _base_names(self) -> frozenset[str]:
        """Names under which a tensor is loaded over the base model's own."""
        return base_tensor_names(self.model, self.case.config, self.case.resolution, self.case.peft or NEWEST)

    @cached_property
    def _causes(self) -> dict[_Cause, list[tuple[Arrival, str]]]:
        """Why tensors are odd, with the name that each should have; empty where there is no such place."""
        causes: dict[_Cause, list[tuple[Arrival, str]]] = {}
        for arrival in self.odd:
            cause, place = self._cause(arrival.name)
            causes.setdefault(cause, []).append((arrival, place))
        return causes

    @cached_property
    def _tails(self) -> dict[str, set[str]]:
        """What each wanted name begins with, by what follows: from the last word before its first number."""
        found: dict[str, set[str]] = {}
        for name in self.wanted.tensors:
            front, tail = _tail(name.removeprefix(PREFIX))
            found.setdefault(tail, set()).add(front)
        return found

    def _cause(self, name: str) -> tuple[_Cause, str]:
        for pattern, program in _OTHERS:
            if pattern.match(name):
                fix = "Export it from there in PEFT's format, or convert names and shapes."
                return _Cause(f"have names of {program}", fix), ""
        plain = _ADAPTER_NAME.sub(r"\1\3", name)
        if plain != name and self._wanted(plain):
            adapter = (_ADAPTER_NAME.search(name) or ["", "", ""])[2]
            return _of_adapter(adapter), plain
        plain = _COPY_NAME.sub(".", plain)
        core = plain
        while core.startswith("base_model."):
            core = core.removeprefix("base_model.").removeprefix("model.")
        for guess in dict.fromkeys((plain, PREFIX + core)):
            if guess != name and (wanted := self._wanted(guess)):
                return _of_prefix(name, guess == plain), wanted.name
        front, tail = _tail(core)
        fronts = self._tails.get(tail, set())
        if len(fronts) == 1:
            (right,) = fronts
            return _of_front(front, right, self.seen.converts), f"{PREFIX}{right}{tail}"
        return self._without_place(name, core), ""

    def _without_place(self, name: str, core: str) -> _Cause:
        factor = _OF_FACTOR.search(core)
        if factor is None:
            return self._of_base(name)
        module = core[: factor.start()]
        own = ".".join(part for part in module.split(".") if part != "base_layer")
        owners = self._adapted
        if own in owners and _MAGNITUDE in core and not self.case.config.use_dora:
            return _Cause("are DoRA's magnitudes, and the configuration has use_dora=false", 'Set "use_dora": true.')
        if own in owners and core.endswith(".lora_B.bias") and not self.case.config.lora_bias:
            return _Cause("are biases of factors, and the configuration has lora_bias=false", 'Set "lora_bias": true.')
        if own in self.model.module_by_name:
            return _Cause(
                "belong to modules that the configuration does not target",
                "Name them in target_modules (or target_parameters), if they were trained.",
            )
        return _Cause(
            f"belong to modules that {self.model.architecture or 'this model'} does not have"
            + self._after_conversion(),
            f"Give the base that it was trained on{self._named_base()}.",
        )

    def _after_conversion(self) -> str:
        return ", as far as names of earlier transformers releases are known here" if self.seen.converts else ""

    def _of_base(self, name: str) -> _Cause:
        """Why a tensor that is no factor has no place."""
        if name in self._base_names:
            return _Cause(
                "are the base model's own, which the configuration does not train",
                "Take them out of the file, or name their modules in modules_to_save if they were trained.",
                "warning",
                "PEFT overwrites the base model's numbers with them on loading, for all adapters",
            )
        return _Cause(
            "are no part of a LoRA adapter on this model", "Take them out of the file, if nothing else needs them."
        )

    def names(self) -> Iterator[Finding]:
        """Findings on names that PEFT has no place for, those of most tensors first."""
        causes = sorted(self._causes.items(), key=lambda item: -len(item[1]))
        for cause, odd in causes[:_MOST_CAUSES]:
            sources = [source for arrival, _ in odd for source in arrival.sources]
            yield Finding(
                "tensor-unexpected",
                cause.severity,
                listed(dict.fromkeys(map(_holder, sources)), _MOST_NAMED),
                f"{_tensors(len(sources))} of the file {cause.message}, such as {quoted(sources[0])}: {cause.effect}.",
                cause.fix,
            )
        rest = [source for _, odd in causes[_MOST_CAUSES:] for arrival, _ in odd for source in arrival.sources]
        if rest:
            yield Finding(
                "tensor-unexpected",
                "error",
                listed(dict.fromkeys(map(_holder, rest)), _MOST_NAMED),
                f"{_tensors(len(rest))} more have names that PEFT has no place for, for {len(causes) - _MOST_CAUSES} further "
                "reasons.",
                "Look at the findings before: a file with so many kinds of names was not saved by PEFT.",
            )

    # What is not there.

    def gaps(self) -> Iterator[Finding]:
        """Findings on what is missing, other than what lies in the file under another name."""
        if self.seen.uneven:
            yield Finding(
                "tensor-missing",
                "error",
                listed(dict.fromkeys(map(_holder, self.seen.uneven)), _MOST_NAMED),
                "Tensors of single experts are missing or of different shapes, so that PEFT cannot put them together to "
                "those of the fused experts, and raises on loading.",
                "Save the adapter again with all experts, or adapt the fused experts: target_parameters.",
            )
        elsewhere = {place for odd in self._causes.values() for _, place in odd}
        program = any(cause.message.startswith("have names of") for cause in self._causes)
        missing = [one for name, one in self.wanted.tensors.items() if name not in self.found and name not in elsewhere]
        if not self.wanted.exact:
            missing = [one for one in missing if not self._copied(one.name)]
        factors = [one for one in missing if one.part in _FACTORS]
        if self.seen.uneven or (program and not any(self.wanted.tensors[n].rank for n in self.found)):
            factors = []
        yield from self._missing_factors(factors)
        copies = [one for one in missing if one.part == "copy"]
        if copies:
            yield Finding(
                "tensor-missing",
                "error",
                _owners(copies),
                f"{_tensors(len(copies))} of modules that modules_to_save names are not in the file, such as "
                f"{quoted(copies[0].name)}: PEFT raises a KeyError on loading.",
                "Save the adapter again with these modules, or take them out of modules_to_save if they were not trained "
                "(a task_type of classification adds its head by itself).",
            )
        biases = [one for one in missing if one.part == "bias"]
        if biases and self.wanted.exact:
            older = " PEFT before 0.21 did not save those of bias=lora_only." if self.case.config.bias != "all" else ""
            yield Finding(
                "tensor-missing",
                "warning",
                _owners(biases),
                f"{_tensors(len(biases))} that bias={self.case.config.bias!r} trains are not in the file: PEFT leaves the "
                f"base model's own there, silently.{older}",
                'Save the adapter again, or set "bias": "none" if they were not trained.',
            )

    def _missing_factors(self, missing: list[SavedTensor]) -> Iterator[Finding]:
        gone: dict[str, set[str]] = {}
        for one in missing:
            gone.setdefault(one.owner, set()).add(one.part)
        adapted = len(self._adapted)
        dead = [owner for owner, parts in gone.items() if "up" in parts]
        random = [owner for owner, parts in gone.items() if "down" in parts and "up" not in parts]
        partial = [owner for owner, parts in gone.items() if not parts & {"up", "down"}]
        if dead:
            yield Finding(
                "tensor-missing",
                "error",
                listed(dead, _MOST_NAMED),
                f"{len(dead)} of {adapted} adapted weights have no B in the file: PEFT warns of missing adapter keys at "
                "most and leaves B at zero, so that the adapter does nothing there.",
                "Take them out of the targets if they were not trained; else save the adapter again, or give the base "
                f"that it was trained on{self._named_base()}.",
            )
        if random:
            yield Finding(
                "tensor-missing",
                "error",
                listed(random, _MOST_NAMED),
                f"{len(random)} of {adapted} adapted weights have B in the file and no A: PEFT warns of missing adapter "
                "keys at most and draws A at random, so that B turns noise into output.",
                "Save the adapter again, both factors of each weight.",
            )
        if partial:
            parts = {part for owner in partial for part in gone[owner]}
            names = [
                word
                for part, word in (("magnitude", "magnitudes (use_dora)"), ("up_bias", "biases (lora_bias)"))
                if part in parts
            ]
            yield Finding(
                "tensor-missing",
                "error",
                listed(partial, _MOST_NAMED),
                f"{len(partial)} of {adapted} adapted weights lack their {' and '.join(names)} in the file: PEFT leaves them "
                "as it initializes them.",
                "Save the adapter again, or switch the option off in its configuration if it was trained without.",
            )

    def conversions(self) -> Iterator[Finding]:
        """Notes on names of earlier releases that PEFT knows how to read."""
        kinds = (
            (self.seen.renamed, "are renamed"),
            (self.seen.merged, "of single experts are put together to those of the fused experts"),
        )
        for names, said in kinds:
            if names:
                yield Finding(
                    "tensor-unexpected",
                    "note",
                    listed(dict.fromkeys(map(_holder, names)), _MOST_NAMED),
                    f"{_tensors(len(names))} have names of transformers before 5 and {said} when PEFT 0.19 or later loads "
                    "them with transformers 5. Servers that read the file themselves may not know them.",
                    "Load it once with PEFT and save it anew, for names of today.",
                )


def _of_adapter(adapter: str) -> _Cause:
    said = f"have an adapter's name, {quoted(adapter)}, in theirs"
    if adapter == "default":
        # Without a name given, PEFT calls the adapter so and finds them by chance.
        return _Cause(
            said, _RESAVE, "warning", "PEFT finds them only if it is to call the adapter so, and servers may not"
        )
    return _Cause(said, _RESAVE, effect="PEFT ignores them silently unless it is to call the adapter so")


def _of_prefix(name: str, only_copy: bool) -> _Cause:
    if only_copy:
        return _Cause(
            "have PEFT's own modules_to_save in their names, which those of a saved adapter have not", _RESAVE
        )
    times = name.count("base_model.")
    if not times:
        return _Cause(f'lack the prefix "{PREFIX}" that PEFT gives every name', _RESAVE)
    said = f"{times} times" if times > 1 else "not as PEFT writes it"
    return _Cause(f'have the prefix "{PREFIX}" {said}', _RESAVE)


def _of_front(front: str, right: str, converts: bool) -> _Cause:
    said = f'begin with "{PREFIX}{_cut(front)}" where those of this model begin with "{PREFIX}{right}"'
    if converts:
        said += ", which is none of the earlier names that PEFT renames, as far as these are known here"
    return _Cause(
        f"{said} (the same layers in another class of the model)",
        "Load the class that it was trained on (with or without its head, as text or as vision-language model), or rename "
        "the tensors.",
    )


def _tail(name: str) -> tuple[str, str]:
    """A name's front, and the rest from the last word before its first number."""
    match = re.match(r"(.*?)((?:[^.]+\.)\d+\..*)", name)
    return (match[1], match[2]) if match else ("", name)


def _ungathered(one: _Mismatch) -> bool:
    two = one.wanted.part in ("down", "up")
    return 0 in one.shape or (two and len(one.shape) < 2 <= len(one.wanted.shape))


def _holder(name: str) -> str:
    """The module of a factor, or the tensor itself."""
    match = re.search(r"\.lora[._]", name)
    return name[: match.start()] if match else name


def _short(name: str) -> str:
    """The last words of a tensor's name: its layer's and its own."""
    return ".".join(part for part in name.split(".") if not part.isdigit()).rpartition("self_attn.")[2][-60:]


def _owners(tensors: Iterable[SavedTensor]) -> str:
    return listed(dict.fromkeys(tensor.owner for tensor in tensors), _MOST_NAMED)


def _tensors(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def _weights(count: int) -> str:
    return f"{count} weight" if count == 1 else f"{count} weights"


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"
