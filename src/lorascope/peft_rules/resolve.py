"""What PEFT does with a configuration on a model: everything of this folder together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.foreign_text import literal
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules import (
    initializations,
    matchers,
    modules_to_save,
    moe_rewrite,
    parameter_count,
    token_rows,
    validation,
    variants,
)
from lorascope.peft_rules.adaptability import dead_or_crashing, guarded_by_mamba, unbuildable
from lorascope.peft_rules.matchers import Match, ModuleMatcher, NameSet
from lorascope.peft_rules.name_patterns import BadPatternError, compiled, expect_names_of, in_matching_time
from lorascope.peft_rules.rank_pattern import PatternTable
from lorascope.peft_rules.releases import Release, release_of
from lorascope.peft_rules.types import Adapted, AdapterConfig, Behavior, Resolution

# So many names, or letters of a text, stand in a message.
_MOST_SHOWN = 10
_MOST_LETTERS = 200
# The code of a refusal that is not PEFT's: the rules do not say what it would do.
NOT_COVERED = "not-covered"
# PEFT makes adapters as float32, and torch counts the bytes of a tensor in 63 bits.
_BYTES = 4
_MOST_BYTES = 2**63
# EMBEDDING_LAYER_NAMES of PEFT.
_EMBEDDINGS = ("embed_tokens", "lm_head")
# Classes of torch whose attribute `bias` is a flag.
_FLAGGED = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")


class _RefusalError(Exception):
    """PEFT stops here; the text says why, the code which kind of finding that is."""

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


@in_matching_time
def resolve(model: ModelMap, config: AdapterConfig, peft: str = "0.21.2") -> Resolution:
    """What `peft.get_peft_model` does with a configuration, without running it.

    Args:
        model: The map of the model.
        config: The configuration. It is not changed (PEFT changes the one it is given).
        peft: The version of PEFT.

    Returns:
        The adapted weights with rank, alpha, scale and count, the saved modules and the number of trainable
        parameters; or `error` alone where PEFT raises. `warnings` says what PEFT warns about or does silently.

    Raises:
        LorascopeError: The version is unknown, or a pattern is too long or takes too long.
    """
    release = release_of(peft)
    expect_names_of(model)
    try:
        return _Resolver(model, config, release).resolution()
    except _RefusalError as refusal:
        return Resolution(error=str(refusal), cause=refusal.code)
    except BadPatternError as refusal:
        return Resolution(error=str(refusal), cause="bad-pattern")
    except parameter_count.UncountableError as refusal:
        return Resolution(error=str(refusal), cause="unsupported")


class _Resolver:
    """One run of PEFT's `inject_adapter`, step by step in its order."""

    def __init__(self, model: ModelMap, config: AdapterConfig, release: Release) -> None:
        self.model = model
        self.config = config
        self.release = release
        self.warnings: list[Behavior] = []
        self.adapted: list[Adapted] = []
        self.adapted_modules: list[Module] = []
        # Modules that carry an adapter, of their own or of their parameters, with the number of wrappers around each.
        self.wraps: dict[str, int] = {}
        self.parameter_owners: set[str] = set()

    def _warn(self, code: str, message: str, names: Iterable[str] = ()) -> None:
        self.warnings.append(Behavior(code, message, tuple(names)))

    def resolution(self) -> Resolution:
        if fault := validation.fault_of(self.model, self.config, self.release):
            raise _RefusalError(fault.message, fault.code)
        if uncovered := variants.uncovered(self.config, self.release):
            raise _RefusalError(uncovered, NOT_COVERED)
        saved_first = modules_to_save.names_before_matching(self.config.modules_to_save, self.config.task_type)
        targets = moe_rewrite.converted_targets(self.model, self.config, saved_first, self.release)
        if targets.error:
            raise _RefusalError(targets.error, "moe-rewrite")
        self.warnings += targets.warnings
        self._check_tying(targets)
        self._ranks: PatternTable[int] = PatternTable(targets.rank_pattern, "rank_pattern")
        self._alphas: PatternTable[float] = PatternTable(targets.alpha_pattern, "alpha_pattern")

        modules = self._module_targets(targets)
        self._adapt_modules(modules, saved_first)
        fan_in_fan_out = self._fan_in_fan_out()
        self._adapt_parameters(targets.parameters or frozenset(), fan_in_fan_out)
        if not self.adapted and modules != matchers.DUMMY_TARGET:
            raise _RefusalError(self._nothing_matched(modules, targets.parameters), "no-match")
        self._warn_of_patterns(targets)
        self._warn_of_ties()
        self._warn_of_options()

        names, extra = self._save()
        trainable = sum(weight.trainable for weight in self.adapted) + extra
        return Resolution(
            adapted=tuple(sorted(self.adapted, key=lambda weight: weight.name)),
            trainable=trainable,
            saved=names,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _check_tying(self, targets: moe_rewrite.Targets) -> None:
        """`ensure_weight_tying` changes nothing here: no embedding that shares its weight is targeted or saved."""
        if not self.config.ensure_weight_tying or not token_rows.tied_modules(self.model):
            return
        if isinstance(targets.modules, str):
            pattern = compiled(targets.modules)
            targeted = any(pattern.fullmatch(name) for name in _EMBEDDINGS)
        else:
            targeted = any(name.rpartition(".")[2] in _EMBEDDINGS for name in targets.modules or ())
        if targeted or any(name.rpartition(".")[2] in _EMBEDDINGS for name in self.config.modules_to_save or ()):
            why = (
                "ensure_weight_tying with a tied embedding among the targets or the saved modules, which PEFT then "
                "moves from one to the other and ties."
            )
            raise _RefusalError(why, NOT_COVERED)

    # Modules.

    def _module_targets(self, targets: moe_rewrite.Targets) -> str | frozenset[str] | None:
        asked = targets.modules
        if asked is None:
            asked = matchers.default_targets(self.model.model_type, self.release)
            if asked is None and not targets.parameters:
                raise _RefusalError(
                    f'PEFT has no default for model type "{self.model.model_type}". '
                    "Give target_modules or target_parameters.",
                    "default-targets",
                )
            if asked is not None:
                shown = asked if isinstance(asked, str) else sorted(asked)
                self._warn(
                    "default-targets",
                    f"target_modules is missing, so PEFT adapts its default for {self.model.model_type}: {shown}"
                    + (", besides the target_parameters." if targets.parameters else "."),
                )
        if isinstance(asked, str) and asked.lower() == matchers.ALL_LINEAR:
            asked = matchers.all_linear_targets(self.model, self.config.task_type)
        if isinstance(asked, frozenset):
            names = ["", *(module.name for module in self.model.modules)]
            condensed = matchers.condensed_targets(asked, names)
            if condensed is not asked and self.config.layers_to_transform is not None:
                self._warn(
                    "condensed",
                    f"PEFT shortens a list of {matchers.CONDENSED_FROM} or more names to suffixes, and a suffix is "
                    "subject to layers_to_transform while a full name is not.",
                )
            asked = condensed
        return asked

    def _adapt_modules(self, targets: str | frozenset[str] | None, saved: Sequence[str]) -> None:
        matcher = ModuleMatcher(targets, self.config, saved, self.release)
        dropped: list[str] = []
        exact: list[str] = []
        excluded = 0
        layers_seen: set[int] = set()
        used: set[str] = set()
        if targets == matchers.DUMMY_TARGET:
            return
        for module in self.model.modules:
            found = matcher.match(module.name)
            if found is Match.NO:
                continue
            if found is Match.EXCLUDED:
                excluded += 1
                continue
            used.update(matcher.names.hits(module.name))
            if found is Match.NO_LAYER:
                dropped.append(module.name)
            if found is Match.EXACT and matcher.layers.active:
                exact.append(module.name)
            if found.targeted:
                if found is Match.SUFFIX and matcher.layers.active:
                    layers_seen.add(matcher.layers.index(module.name) or 0)
                self._adapt_module(module)
        if isinstance(targets, frozenset) and self.adapted:
            unknown = sorted(targets - used)
            if unknown:
                self._warn(
                    "no-match", f"No module is called {_listed(unknown)}: PEFT ignores such entries silently.", unknown
                )
        if dropped:
            self._warn(
                "layers-dropped",
                f"{_listed(dropped)} match target_modules but lie in no layer that PEFT finds, so layers_to_transform "
                "drops them silently. Give their full names, or a layers_pattern.",
                dropped,
            )
        if exact:
            self._warn(
                "layers-ignored",
                f"{_listed(exact)} are given by full name, for which PEFT ignores layers_to_transform.",
                exact,
            )
        if layers_seen and (absent := sorted(matcher.layers.wanted - layers_seen)):
            self._warn(
                "layers-absent",
                f"layers_to_transform names layers without a target, ignored silently: {_some(absent)}.",
                [str(layer) for layer in absent],
            )
        if self.config.exclude_modules and not excluded:
            self._warn("exclude-unmatched", "exclude_modules matches no module.")

    def _adapt_module(self, module: Module) -> None:
        config, name = self.config, module.name
        if guarded_by_mamba(self.model, name, self.release):
            raise _RefusalError(
                f'PEFT refuses "{name}": on {self.model.model_type} no module called out_proj or conv1d may be '
                "adapted. Leave it out of target_modules, or exclude it.",
                "unsupported",
            )
        if module.kind == "other":
            raise _RefusalError(
                f'target_modules matches "{name}", a {module.class_name}, for which PEFT has no adapter. Name the '
                "linear layers within it, or its parameters in target_parameters.",
                "unsupported",
            )
        rank = self._ranks.value(name, config.r)
        alpha = self._alphas.value(name, config.lora_alpha)
        self._check_rank(name, rank)
        self._check_kind(module, rank)
        # PEFT makes a dropout of what is more than 0 alone, so that NaN and negative numbers pass.
        if config.lora_dropout > 1:
            raise _RefusalError(f"lora_dropout={config.lora_dropout} is no probability.", "dropout")
        self._check_options(module, rank)
        factors = parameter_count.module_factors(module, rank, config, self.release)
        self._check_size(name, factors)
        self._add(name, rank, alpha, factors.trainable)
        self.adapted_modules.append(module)
        self.wraps[name] = 1
        if module.kind == "multihead_attention":
            self.wraps.setdefault(f"{name}.out_proj", 1)
        if config.lora_bias and parameter_count.stored_shape(module, "bias") is None:
            self._warn("bias", "lora_bias=True on layers without a bias: such adapters cannot be merged.")
        trouble = dead_or_crashing(module)
        if trouble:
            self._warn("dead-or-crashing", f"{name}: {trouble}", [name])

    def _check_rank(self, name: str, rank: int) -> None:
        if rank <= 0:
            raise _RefusalError(
                f'The rank of "{name}" is {rank}; PEFT takes positive ranks only. To leave it out, exclude it.',
                "rank-invalid",
            )

    def _check_size(self, name: str, factors: parameter_count.Factors) -> None:
        if factors.largest * _BYTES >= _MOST_BYTES:
            raise _RefusalError(f'No tensor can be as large as the adapter of "{name}" would be.', "rank-invalid")

    def _check_options(self, module: Module, rank: int) -> None:
        """The variant and the initialization that are asked for go with this module and this rank."""
        config = self.config
        sides = parameter_count.in_and_out(module)
        if module.kind == "linear" and (packing := variants.packing_of(module)):
            self._check_packed(module, packing)
        if fault := variants.variant_fault(config, self.release, module, rank, sides):
            raise _RefusalError(f'"{module.name}": {fault}', "variant")
        if fault := initializations.initialization_fault(config, self.release, module, rank, sides):
            raise _RefusalError(f'"{module.name}": {fault}', "initialization")

    def _check_packed(self, module: Module, packing: str) -> None:
        config = self.config
        if uncovered := variants.packed_uncovered(config, module, self.release):
            raise _RefusalError(uncovered, NOT_COVERED)
        if fault := initializations.packed_fault(config.init_lora_weights, self.release, packing):
            raise _RefusalError(f'"{module.name}": {fault}', "initialization")
        if passed_over := variants.ignored(config, module, self.release):
            self._warn("variant", f"PEFT passes over {passed_over} on layers of bitsandbytes: they get plain adapters.")

    def _check_kind(self, module: Module, rank: int) -> None:
        config, name = self.config, module.name
        if trouble := unbuildable(module):
            raise _RefusalError(f'target_modules matches "{name}". {trouble}', "unsupported")
        if module.kind == "embedding" and config.lora_bias:
            raise _RefusalError(f'lora_bias=True is not supported for embeddings such as "{name}".', "bias")
        if module.kind == "conv":
            if rank % module.groups:
                raise _RefusalError(
                    f'"{name}" is a convolution with {module.groups} groups: its rank must be a multiple of that, not '
                    f"{rank}.",
                    "rank-invalid",
                )
            if module.groups > 1:
                self._warn("unmergeable", f'"{name}" has {module.groups} groups: its adapter cannot be merged.', [name])
                if config.use_dora:
                    self._warn(
                        "dora",
                        f'"{name}" has {module.groups} groups: PEFT takes its norms for DoRA over matrices that do not '
                        "fit them.",
                        [name],
                    )
        if module.kind == "multihead_attention":
            self._check_widths(module)
            if config.use_dora:
                raise _RefusalError(f'DoRA is not supported for "{name}", a MultiheadAttention.', "dora")

    def _check_widths(self, attention: Module) -> None:
        if parameter_count.read_shape(attention, "in_proj_weight") is None:
            raise _RefusalError(
                f'"{attention.name}" has other widths for keys and values, which PEFT does not support.', "unsupported"
            )
        projection = self.model.module_by_name.get(f"{attention.name}.out_proj")
        if any(one is not None and "parametrized" in one.traits for one in (attention, projection)):
            raise _RefusalError(
                f'"{attention.name}" has a parametrized weight, which PEFT cannot replace in a MultiheadAttention.',
                "unsupported",
            )

    # Parameters.

    def _fan_in_fan_out(self) -> bool:
        """The setting after the modules are done: PEFT flips it for each linear layer and each Conv1D it meets."""
        state = self.config.fan_in_fan_out
        for module in self.adapted_modules:
            if module.kind in ("linear", "conv1d"):
                state = module.kind == "conv1d"
        return state

    def _adapt_parameters(self, entries: frozenset[str], fan_in_fan_out: bool) -> None:
        if not entries:
            return
        names = NameSet(entries)
        used: set[str] = set()
        for owner, name, shape in list(self._parameter_places()):
            # PEFT puts a dot before the root's parameters.
            key = name if owner is not None else f".{name}"
            # It finds what a parametrized module has by the full name alone.
            whole = owner is not None and "parametrized" in owner.traits
            if not (key in entries if whole else names.has(key)):
                continue
            used.update({key} if whole else names.hits(key))
            self._adapt_parameter(owner, name, shape, fan_in_fan_out)
        if used and (unknown := sorted(entries - used)):
            self._warn(
                "no-match", f"No parameter is called {_listed(unknown)}: PEFT ignores such entries silently.", unknown
            )
        if not used and self.adapted:
            names_given = sorted(entries)
            self._warn("no-match", f"target_parameters {_listed(names_given)} match no parameter.", names_given)
        if used and (self.config.layers_to_transform is not None or self.config.exclude_modules):
            self._warn(
                "layers-ignored",
                "layers_to_transform and exclude_modules do not apply to target_parameters: every match is adapted. "
                "Spell the layer in the entry: layers.3.mlp.experts.down_proj",
            )

    def _parameter_places(self) -> Iterator[tuple[Module | None, str, tuple[int, ...]]]:
        """Every parameter that PEFT comes by: owner (None for the model itself), name and shape.

        What a parametrized module computes is among them, and so are the factors of the adapters made before, whose
        names may end as the entries do.
        """
        yield from ((None, name, shape) for name, shape in self.model.root_parameters)
        for module in self.model.modules:
            own = dict(module.parameters)
            if "parametrized" in module.traits:
                own |= dict(module.computed)
            yield from ((module, f"{module.name}.{name}", shape) for name, shape in own.items())
            if module.name in self._wrapped_modules:
                yield from self._factors_of(module)

    def _factors_of(self, module: Module) -> Iterator[tuple[Module, str, tuple[int, ...]]]:
        factors = parameter_count.module_factors(
            module, self._ranks.value(module.name, self.config.r), self.config, self.release
        )
        places = {f"{module.name}.lora_A": factors.down, f"{module.name}.lora_B": factors.up}
        if module.kind == "embedding":
            for letter, shape in (("A", factors.down), ("B", factors.up)):
                owner = Module(f"{module.name}.lora_embedding_{letter}", "ParameterDict", "other")
                yield owner, f"{owner.name}.default", shape
            return
        if factors.inner_down:
            inner = f"{module.name}.out_proj"
            places |= {f"{inner}.lora_A": factors.inner_down, f"{inner}.lora_B": factors.inner_up}
        for place, shape in places.items():
            owner = Module(f"{place}.default", "Linear", "linear", (("weight", shape),))
            yield owner, f"{owner.name}.weight", shape
            if factors.up_bias and place.endswith("B"):
                yield owner, f"{owner.name}.bias", (shape[0],)
        if factors.magnitude:
            owner = Module(f"{module.name}.lora_magnitude_vector.default", "DoraLinearLayer", "other")
            yield owner, f"{owner.name}.weight", (factors.magnitude,)

    def _adapt_parameter(self, module: Module | None, name: str, shape: tuple[int, ...], fan_in_fan_out: bool) -> None:
        config = self.config
        if module is None:
            # Before 0.20 PEFT does not raise: its adapter is dead, and saving it runs into endless recursion.
            raise _RefusalError(f'"{name}" is a parameter of the model itself, which PEFT cannot wrap.', "unsupported")
        owner = module.name
        if owner in self._wrapped_modules:
            raise _RefusalError(
                f'"{owner}" would be adapted as a module and through its parameter "{name}". Take it out of '
                "target_modules (an empty list adapts no module) or out of target_parameters.",
                "twice",
            )
        above = next((part for part in _ancestors(owner) if part in self.parameter_owners), "")
        if above:
            raise _RefusalError(
                f'PEFT cannot adapt "{name}" after a parameter of "{above}": it no longer finds the way through the '
                "wrapper. Leave one of them out.",
                "twice",
            )
        if guarded_by_mamba(self.model, owner, self.release):
            raise _RefusalError(
                f'PEFT refuses "{name}": on {self.model.model_type} nothing of a module called out_proj or conv1d may '
                "be adapted.",
                "unsupported",
            )
        # 0.18 asks for the features of the module around the parameter before it looks at the parameter itself.
        if self.release < (0, 19) and module.kind == "multihead_attention":
            self._check_widths(module)
        obstacles = {
            "lora_dropout other than 0": bool(config.lora_dropout),
            "fan_in_fan_out, which PEFT also sets by itself once it has adapted a Conv1D": fan_in_fan_out,
            "lora_bias": config.lora_bias,
            "use_dora": config.use_dora,
        }
        for obstacle, present in obstacles.items():
            if present:
                raise _RefusalError(
                    f'target_parameters matches "{name}", and parameters do not go with {obstacle}.',
                    "parameters-options",
                )
        if len(shape) not in (2, 3):
            raise _RefusalError(
                f'target_parameters matches "{name}" of shape {shape}; PEFT adapts 2-D and 3-D parameters only.',
                "unsupported",
            )
        rank = self._ranks.value(name, config.r)
        self._check_rank(name, rank)
        if fault := variants.variant_parameter_fault(config, self.release):
            raise _RefusalError(f'"{name}": {fault}', "variant")
        weight = parameter_count.read_shape(module, "weight")
        if fault := initializations.initialization_parameter_fault(config, self.release, module, weight, rank):
            raise _RefusalError(f'"{name}": {fault}', "initialization")
        method = initializations.method_of(config.init_lora_weights, self.release)
        if method in ("pissa", "olora") and weight is not None and len(weight) > 2:
            raise _RefusalError(
                f'init_lora_weights={literal(str(config.init_lora_weights), 200)} on "{name}", whose module has a weight of '
                f"{len(weight)} dimensions.",
                NOT_COVERED,
            )
        factors = parameter_count.parameter_factors(shape, rank, module, config, self.release)
        self._check_size(name, factors)
        self._add(name, rank, self._alphas.value(name, config.lora_alpha), factors.trainable)
        self.wraps[owner] = self.wraps.get(owner, 0) + 1
        self.parameter_owners.add(owner)
        leaf = name.rpartition(".")[2]
        if "bias" in leaf:
            self._warn(
                "bias", f'"{name}" is a bias of shape {shape}, which PEFT adapts as if it were a weight.', [name]
            )
        trouble = dead_or_crashing(module)
        if trouble:
            self._warn("dead-or-crashing", f"{name}: {trouble}", [name])

    @property
    def _wrapped_modules(self) -> Mapping[str, None]:
        if not hasattr(self, "_wrapped"):
            self._wrapped = {module.name: None for module in self.adapted_modules}
        return self._wrapped

    def _add(self, name: str, rank: int, alpha: float, count: int) -> None:
        scale = alpha / math.sqrt(rank) if self.config.use_rslora else alpha / rank
        trains = 0 if self.config.inference_mode else count
        self.adapted.append(Adapted(name=name, rank=rank, alpha=alpha, scale=scale, trainable=trains))

    # The rest.

    def _nothing_matched(self, modules: str | frozenset[str] | None, parameters: frozenset[str] | None) -> str:
        shown = repr(modules[:_MOST_LETTERS]) if isinstance(modules, str) else _some(modules or ())
        text = f"Nothing is adapted: target_modules={shown}"
        if parameters:
            text += f", target_parameters={_some(parameters)}"
        text += " match nothing that is not excluded."
        if isinstance(modules, str) and len(modules) <= _MOST_LETTERS and modules.replace("_", "").isalnum():
            text += f' A string is a regular expression for the whole name: give ["{modules}"] or ".*[.]{modules}".'
        elif self.config.layers_pattern and self.release < (0, 21):
            text += " PEFT before 0.21 does not find a layers_pattern at the very start of a name."
        elif self.config.layers_to_transform is not None:
            text += " layers_to_transform may have dropped all; a layers_pattern says where the layer number stands."
        return text

    def _warn_of_patterns(self, targets: moe_rewrite.Targets) -> None:
        modules = [module.name for module in self.adapted_modules]
        parameters = [weight.name for weight in self.adapted if weight.name not in self._wrapped_modules]
        for label, table in (("rank_pattern", self._ranks), ("alpha_pattern", self._alphas)):
            if not table or not self.adapted:
                continue
            # From 0.21 on PEFT tries every key on every module in the end, to warn of those that match none.
            if modules and self.release >= (0, 21) and (bad := table.bad()):
                raise bad[0][1]
            unmatched = table.unmatched(modules + parameters)
            if unmatched:
                self._warn(
                    "pattern-unmatched",
                    f"{label} has keys that match nothing adapted: {_listed(unmatched)}.",
                    unmatched,
                )
            if parameters and self.release >= (0, 21):
                # The check came with 0.21 and knows module names only.
                false_alarm = sorted(set(table.unmatched(modules)) - set(unmatched))
                if false_alarm:
                    self._warn(
                        "pattern-false-alarm",
                        f"PEFT will warn that the {label} keys {_listed(false_alarm)} were ignored. They were not: "
                        "they match parameters.",
                        false_alarm,
                    )

    def _warn_of_ties(self) -> None:
        adapted = {module.name for module in self.adapted_modules}
        for group in self.model.ties:
            owners = [name.rpartition(".")[0] for name in group]
            hit = [owner for owner in owners if owner in adapted]
            if hit:
                others = sorted(set(owners) - set(hit))
                self._warn(
                    "tied",
                    f"{_listed(sorted(set(hit)))} shares its weight with {_listed(others) or 'another adapted module'}:"
                    " only the named module is adapted, and merging changes or unties the shared weight.",
                    sorted(set(hit)),
                )

    def _save(self) -> tuple[tuple[str, ...], int]:
        """The saved modules, and the trainable parameters beside the adapters: theirs and the biases."""
        config = self.config
        entries = modules_to_save.names_in_the_end(config.modules_to_save, config.task_type)
        saved = modules_to_save.copied_modules(self.model, entries, self.wraps)
        if saved.error:
            raise _RefusalError(saved.error, "saved")
        self._check_copies({*saved.modules, *saved.nested})
        tokens = token_rows.token_rows(self.model, config, self.wraps, {*saved.modules, *saved.nested})
        if tokens.error:
            raise _RefusalError(tokens.error, "tokens")
        if tokens.uncovered:
            raise _RefusalError(tokens.uncovered, NOT_COVERED)
        rows = 0 if config.inference_mode else tokens.trainable
        if not (
            saved.modules or config.modules_to_save or parameter_count.may_train_base(self.model, config, self.release)
        ):
            return (), rows
        self._check_biases()
        tensors = parameter_count.Tensors(self.model)
        below = tensors.below({*saved.modules, *saved.nested})
        copies = sum(tensors.size(below[name]) for name in saved.modules)
        frozen: set[str] = set().union(*(below[name] for name in saved.modules))
        biases = parameter_count.trained_biases(self.model, config, self.wraps, tensors, self.release) - frozen
        if saved.nested:
            self._warn(
                "saved-nested",
                f"{modules_to_save.ESTIMATED}: {_listed(list(saved.nested))} lie within modules that modules_to_save copies "
                "whole, and PEFT may train a second copy that is never used. Name the outer modules only.",
                saved.nested,
            )
            if config.task_type in modules_to_save.SAVING_TWICE:
                # Such task types save twice, and the second round copies what lies within the first one's copies.
                copies += sum(tensors.size(below[name]) for name in saved.nested)
        if config.task_type in modules_to_save.SAVING_TWICE and "base_model.model".endswith(entries):
            self._warn(
                "saved-nested",
                f"{modules_to_save.ESTIMATED}: with task_type={config.task_type} PEFT also takes its own name base_model.model "
                "for an entry of modules_to_save and copies the whole model. Name the modules below it.",
            )
        named = NameSet(entries)
        loose = [name for name in saved.modules if not named.has(name)]
        if loose:
            self._warn(
                "saved-loose",
                f"modules_to_save goes by the end of the name, without a dot: it also copies {_listed(loose)}.",
                loose,
            )
        absent = modules_to_save.unmatched(config.modules_to_save or (), saved.modules + saved.nested)
        if absent:
            self._warn(
                "saved-unmatched",
                f"modules_to_save entries that match no module, ignored silently: {_listed(absent)}.",
                absent,
            )
        if config.inference_mode:
            copies = 0
        return tuple(sorted(set(saved.modules))), copies + tensors.size(biases) + rows

    def _check_copies(self, saved: set[str]) -> None:
        """`modules_to_save` copies nothing that holds a tensor of a computation, which deepcopy refuses."""
        for module in self.model.modules if saved else ():
            if "uncopyable" in module.traits and (
                module.name in saved or any(a in saved for a in _ancestors(module.name))
            ):
                raise _RefusalError(
                    f'modules_to_save cannot copy "{module.name}", which holds a tensor that it computed (pruning, or '
                    "torch.nn.utils.weight_norm).",
                    "saved",
                )

    def _check_biases(self) -> None:
        """`bias="lora_only"` finds parameters: the flag that recurrent layers call `bias` makes PEFT raise."""
        if not self.config.bias.endswith("_only"):
            return
        for name in self.wraps:
            module = self.model.module_by_name.get(name)
            if module and ("untrainable-bias" in module.traits or module.class_name in _FLAGGED):
                raise _RefusalError(
                    f'bias={literal(self.config.bias, 200)} takes the attribute "bias" of "{name}" for a parameter, and in a '
                    f'{module.class_name} it is none. Give bias="none".',
                    "bias",
                )

    def _warn_of_options(self) -> None:
        """What an initialization or `inference_mode` means beyond the figures."""
        config = self.config
        if config.inference_mode:
            self._warn("frozen", "inference_mode=True freezes the adapter: nothing of it trains.")
        method = initializations.method_of(config.init_lora_weights, self.release)
        if needed := initializations.NEEDED.get(method):
            self._warn("initialization", f"init_lora_weights={literal(str(config.init_lora_weights), 200)}: {needed}.")
        if method in initializations.CHANGING:
            self._warn(
                "initialization",
                f"init_lora_weights={literal(str(config.init_lora_weights), 200)} changes the weights of the base model, so that the "
                "adapter fits no other copy of it: save it with path_initial_model_for_weight_conversion.",
            )


def _ancestors(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _some(names: Iterable[str | int]) -> str:
    """Names or numbers as Python would write their list, the first ten of many."""
    ordered: list[str | int] = sorted(names)
    more = f" … and {len(ordered) - _MOST_SHOWN:,} more" if len(ordered) > _MOST_SHOWN else ""
    return f"[{', '.join(repr(_cut(name)) for name in ordered[:_MOST_SHOWN])}{more}]"


def _cut(name: str | int) -> str | int:
    return f"{name[:_MOST_LETTERS]}…" if isinstance(name, str) and len(name) > _MOST_LETTERS else name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(str(_cut(name)) for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
