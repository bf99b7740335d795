"""All of PEFT's rules together: what it does with a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules import (
    initializations,
    matchers,
    modules_to_save,
    moe_rewrite,
    parameter_count,
    reasons,
    replication,
    token_rows,
    validation,
    variants,
)
from lorascope.peft_rules.adaptability import constructor_mismatch, guarded_by_mamba, known_broken
from lorascope.peft_rules.dead_weights import why_dead
from lorascope.peft_rules.diagnostics import Diagnostic, Reason, RefusalError
from lorascope.peft_rules.matchers import Match, ModuleMatcher, NameSet
from lorascope.peft_rules.name_patterns import BadPatternError, compiled, expect_names_of, in_matching_time
from lorascope.peft_rules.quantization import is_repacked
from lorascope.peft_rules.rank_pattern import PatternTable
from lorascope.peft_rules.releases import NEWEST, Release, release_of
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution

_MOST_LETTERS = 200
# PEFT makes adapters as float32, and torch counts the bytes of a tensor in 63 bits.
_BYTES = 4
_MOST_BYTES = 2**63
# EMBEDDING_LAYER_NAMES of PEFT.
_EMBEDDINGS = ("embed_tokens", "lm_head")
# Classes of torch whose attribute `bias` is a flag.
_FLAGGED = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")


@in_matching_time
def resolve(model: ModelMap, config: AdapterConfig, peft: str = NEWEST) -> Resolution:
    """What `peft.get_peft_model` does with a configuration, without running it.

    Args:
        model: The map of the model.
        config: The configuration. It is not changed (PEFT changes the one it is given).
        peft: The version of PEFT.

    Returns:
        The adapted weights with rank, alpha, scale and count, the saved modules and the number of trainable
        parameters; or `refusal` alone where PEFT raises. `warnings` says what PEFT warns about or does silently.

    Raises:
        LorascopeError: The version is unknown, or a pattern is too long or takes too long.
    """
    release = release_of(peft)
    expect_names_of(model)
    try:
        return _Resolver(model, config, release).resolution()
    except (RefusalError, BadPatternError, parameter_count.UncountableError) as error:
        return Resolution(refusal=error.diagnostic)


class _Resolver:
    """One run of PEFT's `inject_adapter`, in its order."""

    def __init__(self, model: ModelMap, config: AdapterConfig, release: Release) -> None:
        self.replicated = replication.replicated(model, config.layer_replication)
        self.model = self.replicated.model
        self.release = release
        self.warnings: list[Diagnostic] = []
        # What the rules do not cover: the configuration is resolved without.
        self.uncovered: dict[tuple[Reason, str], Diagnostic] = {}
        self.given = config
        self.config = config = self._covered(config)
        self.adapted: list[Adapted] = []
        self.adapted_modules: list[Module] = []
        # Modules that carry an adapter, of their own or of their parameters, with the number of wrappers around each.
        self.wraps: dict[str, int] = {}
        self.parameter_owners: set[str] = set()
        # Neither a variant nor an initialization of its own, which fits every module.
        method = initializations.method_of(config.init_lora_weights, release)
        self.is_plain = method == "default" and not variants.requested(config, release)

    def resolution(self) -> Resolution:
        _stop_at(validation.refused_settings(self.model, self.given, self.release))
        _stop_at(self.replicated.refusal)
        if self.replicated.layers:
            layers = len(self.replicated.layers)
            self.warnings.append(reasons.REPLICATED.about(layers=layers, count=self.replicated.count))
        saved_first = modules_to_save.names_before_matching(self.config.modules_to_save, self.config.task_type)
        targets = moe_rewrite.converted_targets(self.model, self.config, saved_first, self.release)
        _stop_at(targets.refusal)
        self.warnings += targets.warnings
        self._check_tying(targets)
        self._ranks: PatternTable[int] = PatternTable(targets.rank_pattern, "rank_pattern")
        self._alphas: PatternTable[float] = PatternTable(targets.alpha_pattern, "alpha_pattern")

        modules = self._module_targets(targets)
        self._adapt_modules(modules, saved_first)
        fan_in_fan_out = self._fan_in_fan_out()
        self._adapt_parameters(targets.parameters or frozenset(), fan_in_fan_out)
        if not self.adapted and modules != matchers.DUMMY_TARGET:
            raise RefusalError(self._nothing_matched(modules, targets.parameters))
        self._warn_of_patterns(targets)
        self._warn_of_ties()
        self._warn_of_options()

        names, extra = self._save()
        trainable = sum(weight.trainable for weight in self.adapted) + extra
        return Resolution(
            adapted=tuple(sorted(self.adapted, key=lambda weight: weight.name)),
            trainable=trainable,
            saved=names,
            warnings=tuple(dict.fromkeys([*self.uncovered.values(), *self.warnings])),
        )

    def _covered(self, config: AdapterConfig) -> AdapterConfig:
        """The configuration without the variants that the rules of a release do not cover."""
        self._leave_out(self.replicated.uncovered)
        missing = variants.variants_not_covered(config, self.release)
        self._leave_out(missing)
        unset: dict[str, Any] = dict.fromkeys(missing.values["options"]) if missing else {}
        return dataclasses.replace(config, **unset)

    def _leave_out(self, uncovered: Diagnostic | None) -> None:
        """Note what the rules do not cover, once for each reason and option."""
        if uncovered is not None:
            self.uncovered.setdefault((uncovered.reason, str(uncovered.values)), uncovered)

    def _check_tying(self, targets: moe_rewrite.Targets) -> None:
        """Leave `ensure_weight_tying` out where it would change anything."""
        if not self.config.ensure_weight_tying or not token_rows.tied_modules(self.model):
            return
        if isinstance(targets.modules, str):
            pattern = compiled(targets.modules)
            targeted = any(pattern.fullmatch(name) for name in _EMBEDDINGS)
        else:
            targeted = any(name.rpartition(".")[2] in _EMBEDDINGS for name in targets.modules or ())
        if targeted or any(name.rpartition(".")[2] in _EMBEDDINGS for name in self.config.modules_to_save or ()):
            self._leave_out(reasons.TYING_NOT_COVERED.about())

    # Modules.

    def _module_targets(self, targets: moe_rewrite.Targets) -> str | frozenset[str] | None:
        entries = targets.modules
        if entries is None:
            entries = self._default_targets(bool(targets.parameters))
        if isinstance(entries, str) and entries.lower() == matchers.ALL_LINEAR:
            entries = matchers.all_linear_targets(self.model, self.config.task_type)
        if not isinstance(entries, frozenset):
            return entries
        condensed = matchers.condensed_targets(entries, ["", *(module.name for module in self.model.modules)])
        if condensed is not entries and self.config.layers_to_transform is not None:
            self.warnings.append(reasons.CONDENSED.about(least=matchers.CONDENSED_FROM))
        return condensed

    def _default_targets(self, parameters: bool) -> str | frozenset[str] | None:
        model_type = self.model.model_type
        targets = matchers.default_targets(model_type, self.release)
        if targets is not None:
            shown = targets if isinstance(targets, str) else sorted(targets)
            self.warnings.append(
                reasons.DEFAULT_TARGETS.about(model_type=model_type, targets=shown, parameters=parameters)
            )
        elif not parameters:
            raise RefusalError(reasons.NO_DEFAULT.about(model_type=model_type))
        return targets

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
            match = matcher.match(module.name)
            if match is Match.NO:
                continue
            if match is Match.EXCLUDED:
                excluded += 1
                continue
            used.update(matcher.names.hits(module.name))
            if match is Match.NO_LAYER:
                dropped.append(module.name)
            if match is Match.EXACT and matcher.layers.active:
                exact.append(module.name)
            if match.targeted:
                if match is Match.SUFFIX and matcher.layers.active:
                    layers_seen.add(matcher.layers.index(module.name) or 0)
                self._adapt_module(module)
        if isinstance(targets, frozenset) and self.adapted and (unknown := self._unknown(targets - used)):
            self.warnings.append(reasons.UNMATCHED_MODULES.about(*unknown))
        if dropped:
            self.warnings.append(reasons.LAYERS_DROPPED.about(*dropped))
        if exact:
            self.warnings.append(reasons.LAYERS_IGNORED.about(*exact))
        if layers_seen and (absent := sorted(matcher.layers.wanted - layers_seen)):
            self.warnings.append(reasons.LAYERS_ABSENT.about(*map(str, absent), layers=tuple(absent)))
        if self.config.exclude_modules and not excluded:
            self.warnings.append(reasons.EXCLUDE_UNMATCHED.about())

    def _unknown(self, entries: frozenset[str]) -> list[str]:
        """The user's own entries that no module has for its name or its end; excluded and saved modules have."""
        given = self.config.target_modules
        if isinstance(given, str):  # PEFT has spelled out all-linear
            return []
        names = NameSet(entries)
        return sorted(entries - {entry for module in self.model.modules for entry in names.hits(module.name)})

    def _adapt_module(self, module: Module) -> None:
        config, name = self.config, module.name
        if guarded_by_mamba(self.model, name, self.release):
            raise RefusalError(reasons.GUARDED_MODULE.about(name, model_type=self.model.model_type))
        self._check_megatron()
        if module.kind == "other":
            raise RefusalError(reasons.NO_ADAPTER.about(name, class_name=module.class_name))
        rank = self._ranks.value(name, config.r)
        alpha = self._alphas.value(name, config.lora_alpha)
        self._check_rank(name, rank)
        self._check_kind(module, rank)
        # PEFT makes a dropout of what is more than 0 alone, so that NaN and negative numbers pass.
        if config.lora_dropout > 1:
            raise RefusalError(reasons.NO_PROBABILITY.about(dropout=config.lora_dropout))
        self._check_options(module, rank)
        factors = parameter_count.module_factors(module, rank, config, self.release)
        self._check_size(name, factors)
        self._add(name, rank, alpha, factors.trainable)
        self.adapted_modules.append(module)
        self.wraps[name] = 1
        if module.kind == "multihead_attention":
            self.wraps.setdefault(f"{name}.out_proj", 1)
        if config.lora_bias and parameter_count.stored_shape(module, "bias") is None:
            self.warnings.append(reasons.BIAS_OF_NONE.about())
        self._warn_of_broken(module, name)

    def _warn_of_broken(self, module: Module, name: str) -> None:
        broken = known_broken(module) or why_dead(self.model, name, module.quantization)
        if broken is not None:
            self.warnings.append(dataclasses.replace(broken, names=(name,)))

    def _check_megatron(self) -> None:
        core = self.config.megatron_core
        if self.config.megatron_config and not (core or "").startswith("megatron."):
            raise RefusalError(reasons.MEGATRON_FOREIGN.about(core=core))

    def _check_rank(self, name: str, rank: int) -> None:
        if rank <= 0:
            raise RefusalError(reasons.RANK_NOT_POSITIVE.about(name, rank=rank))

    def _check_size(self, name: str, factors: parameter_count.Factors) -> None:
        if factors.largest * _BYTES >= _MOST_BYTES:
            raise RefusalError(reasons.TOO_LARGE.about(name))

    def _check_options(self, module: Module, rank: int) -> None:
        """Check variant and initialization against a module and rank."""
        config, release = self.config, self.release
        packing = variants.packing_of(module) if module.kind == "linear" else ""
        if self.is_plain and not packing:
            return
        features = parameter_count.in_and_out(module)
        if packing and not self._check_packed(module, packing):
            return
        _stop_at(variants.refused_variant(config, release, module, rank, features))
        _stop_at(initializations.refused_module_initialization(config, release, module, rank, features))

    def _check_packed(self, module: Module, packing: str) -> bool:
        """Check an initialization against a packed layer; False if the rules do not cover the variants on it."""
        config, release = self.config, self.release
        if (uncovered := variants.packed_not_covered(config, module, release)) is not None:
            self._leave_out(uncovered)
            return False
        _stop_at(initializations.refused_packed_initialization(module.name, config.init_lora_weights, release, packing))
        if option := variants.ignored_variant(config, module, release):
            self.warnings.append(reasons.VARIANT_IGNORED.about(option=option))
        return True

    def _check_kind(self, module: Module, rank: int) -> None:
        config, name, groups = self.config, module.name, module.groups
        if constructor_mismatch(module):
            raise RefusalError(reasons.CONSTRUCTOR_MISMATCH.about(name, class_name=module.class_name))
        if config.use_dora and is_repacked(module.quantization):
            raise RefusalError(reasons.REPACKED_DORA.about(name, quantization=module.quantization))
        if module.kind == "embedding" and config.lora_bias:
            raise RefusalError(reasons.EMBEDDING_BIAS.about(name))
        if module.kind == "conv":
            if rank % groups:
                raise RefusalError(reasons.RANK_NOT_OF_GROUPS.about(name, groups=groups, rank=rank))
            if groups > 1:
                self.warnings.append(reasons.UNMERGEABLE.about(name, groups=groups))
                if config.use_dora:
                    self.warnings.append(reasons.GROUPED_DORA.about(name, groups=groups))
        if module.kind == "multihead_attention":
            self._check_widths(module)
            if config.use_dora:
                raise RefusalError(reasons.ATTENTION_DORA.about(name))

    def _check_widths(self, attention: Module) -> None:
        if parameter_count.read_shape(attention, "in_proj_weight") is None:
            raise RefusalError(reasons.OTHER_WIDTHS.about(attention.name))
        projection = self.model.module_by_name.get(f"{attention.name}.out_proj")
        if any(module is not None and "parametrized" in module.traits for module in (attention, projection)):
            raise RefusalError(reasons.PARAMETRIZED.about(attention.name))

    # Parameters.

    def _fan_in_fan_out(self) -> bool:
        """The setting after all modules: each linear layer and Conv1D flips it."""
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
            self.warnings.append(reasons.UNMATCHED_SOME_PARAMETERS.about(*unknown))
        if not used and self.adapted:
            self.warnings.append(reasons.UNMATCHED_ALL_PARAMETERS.about(*sorted(entries)))
        if used and (self.config.layers_to_transform is not None or self.config.exclude_modules):
            self.warnings.append(reasons.LAYERS_IGNORED_BY_PARAMETERS.about())

    def _parameter_places(self) -> Iterator[tuple[Module | None, str, tuple[int, ...]]]:
        """All parameters that PEFT visits: owner (None for the root), name, shape.

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
            raise RefusalError(reasons.ROOT_PARAMETER.about(name))
        owner = module.name
        self._check_owner(module, name)
        self._check_megatron()
        self._check_parameter_options(name, shape, fan_in_fan_out)
        rank = self._ranks.value(name, config.r)
        self._check_rank(name, rank)
        self._check_parameter_initialization(module, name, rank)
        factors = parameter_count.parameter_factors(shape, rank, module, config, self.release)
        self._check_size(name, factors)
        self._add(name, rank, self._alphas.value(name, config.lora_alpha), factors.trainable)
        self.wraps[owner] = self.wraps.get(owner, 0) + 1
        self.parameter_owners.add(owner)
        if "bias" in name.rpartition(".")[2]:
            self.warnings.append(reasons.ADAPTED_BIAS.about(name, shape=shape))
        self._warn_of_broken(module, name)

    def _check_owner(self, module: Module, name: str) -> None:
        """Check that no adapter on the owner is in the way."""
        owner = module.name
        if owner in self._wrapped_modules:
            raise RefusalError(reasons.TWICE.about(name, owner=owner))
        if above := next((part for part in _ancestors(owner) if part in self.parameter_owners), ""):
            raise RefusalError(reasons.TWICE_BELOW.about(name, owner=above))
        if guarded_by_mamba(self.model, owner, self.release):
            raise RefusalError(reasons.GUARDED_PARAMETER.about(name, model_type=self.model.model_type))
        # 0.18 asks for the features of the module around the parameter before it looks at the parameter itself.
        if self.release < (0, 19) and module.kind == "multihead_attention":
            self._check_widths(module)

    def _check_parameter_options(self, name: str, shape: tuple[int, ...], fan_in_fan_out: bool) -> None:
        config = self.config
        settings = {
            "lora_dropout other than 0": bool(config.lora_dropout),
            "fan_in_fan_out, which PEFT also sets by itself once it has adapted a Conv1D": fan_in_fan_out,
            "lora_bias": config.lora_bias,
            "use_dora": config.use_dora,
        }
        for option, present in settings.items():
            if present:
                raise RefusalError(reasons.PARAMETERS_OPTIONS.about(name, option=option))
        if len(shape) not in (2, 3):
            raise RefusalError(reasons.OTHER_DIMENSIONS.about(name, shape=shape))

    def _check_parameter_initialization(self, module: Module, name: str, rank: int) -> None:
        config, release = self.config, self.release
        _stop_at(variants.refused_parameter_variant(config, release, name))
        weight = parameter_count.read_shape(module, "weight")
        _stop_at(initializations.refused_parameter_initialization(config, release, name, module, weight, rank))
        method = initializations.method_of(config.init_lora_weights, release)
        if method in ("pissa", "olora") and weight is not None and len(weight) > 2:
            self._leave_out(
                reasons.INITIALIZATION_NOT_COVERED.about(name, init=config.init_lora_weights, dimensions=len(weight))
            )

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

    def _nothing_matched(self, modules: str | frozenset[str] | None, parameters: frozenset[str] | None) -> Diagnostic:
        hint = ""
        if isinstance(modules, str) and len(modules) <= _MOST_LETTERS and modules.replace("_", "").isalnum():
            hint = "regex"
        elif self.config.layers_pattern and self.release < (0, 21):
            hint = "start"
        elif self.config.layers_to_transform is not None:
            hint = "layers"
        elif modules == frozenset() and any(is_repacked(module.quantization) for module in self.model.modules):
            hint = "packed"
        shown = modules if isinstance(modules, str) else tuple(modules or ())
        return reasons.NOTHING_MATCHED.about(modules=shown, parameters=tuple(parameters or ()), hint=hint)

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
                self.warnings.append(reasons.PATTERN_UNMATCHED.about(*unmatched, option=label))
            if parameters and self.release >= (0, 21):
                # The check came with 0.21 and knows module names only.
                false_alarm = sorted(set(table.unmatched(modules)) - set(unmatched))
                if false_alarm:
                    self.warnings.append(reasons.PATTERN_FALSE_ALARM.about(*false_alarm, option=label))

    def _warn_of_ties(self) -> None:
        adapted = {module.name for module in self.adapted_modules}
        for group in self.model.ties:
            owners = [name.rpartition(".")[0] for name in group]
            hit = [owner for owner in owners if owner in adapted]
            if hit:
                others = tuple(sorted(set(owners) - set(hit)))
                self.warnings.append(reasons.TIED.about(*sorted(set(hit)), others=others))

    def _save(self) -> tuple[tuple[str, ...], int]:
        """The saved modules, and the trainable parameters outside the adapters."""
        config = self.config
        entries = modules_to_save.names_in_the_end(config.modules_to_save, config.task_type)
        saved = modules_to_save.copied_modules(self.model, entries, self.wraps)
        _stop_at(saved.refusal)
        every = {*saved.modules, *saved.nested}
        self._check_copies(every)
        tokens = token_rows.token_rows(self.model, config, self.wraps, every)
        _stop_at(tokens.refusal)
        self._leave_out(tokens.uncovered)
        rows = 0 if config.inference_mode else tokens.trainable
        if not (
            saved.modules or config.modules_to_save or parameter_count.may_train_base(self.model, config, self.release)
        ):
            return (), rows
        self._check_biases()
        tensors = parameter_count.Tensors(self.model)
        below = tensors.below(every)
        copies = sum(tensors.size(below[name]) for name in saved.modules)
        frozen: set[str] = set().union(*(below[name] for name in saved.modules))
        biases = parameter_count.trained_biases(self.model, config, self.wraps, tensors, self.release) - frozen
        if saved.nested and config.task_type in modules_to_save.SAVING_TWICE:
            # Such task types save twice, and the second round copies what lies within the first one's copies.
            copies += sum(tensors.size(below[name]) for name in saved.nested)
        self._warn_of_saved(saved, entries)
        if config.inference_mode:
            copies = 0
        return tuple(sorted(set(saved.modules))), copies + tensors.size(biases) + rows

    def _warn_of_saved(self, saved: modules_to_save.Copied, entries: tuple[str, ...]) -> None:
        config = self.config
        if saved.nested:
            self.warnings.append(reasons.SAVED_NESTED.about(*saved.nested))
        if config.task_type in modules_to_save.SAVING_TWICE and "base_model.model".endswith(entries):
            self.warnings.append(reasons.SAVED_WHOLE_MODEL.about(task_type=config.task_type))
        named = NameSet(entries)
        if loose := [name for name in saved.modules if not named.has(name)]:
            self.warnings.append(reasons.SAVED_LOOSE.about(*loose))
        copied = saved.modules + saved.nested
        if absent := modules_to_save.missing(config.modules_to_save or (), copied, config.task_type):
            self.warnings.append(reasons.SAVED_UNMATCHED.about(*absent))

    def _check_copies(self, saved: set[str]) -> None:
        """Refuse copies of computed tensors, as deepcopy does."""
        for module in self.model.modules if saved else ():
            if "uncopyable" in module.traits and (
                module.name in saved or any(a in saved for a in _ancestors(module.name))
            ):
                raise RefusalError(reasons.SAVED_UNCOPYABLE.about(module.name))

    def _check_biases(self) -> None:
        """Refuse modules whose `bias` is a flag, as in recurrent layers."""
        if not self.config.bias.endswith("_only"):
            return
        for name in self.wraps:
            module = self.model.module_by_name.get(name)
            if module and ("untrainable-bias" in module.traits or module.class_name in _FLAGGED):
                raise RefusalError(reasons.FLAG_BIAS.about(name, bias=self.config.bias, class_name=module.class_name))

    def _warn_of_options(self) -> None:
        """What an initialization or `inference_mode` means beyond the figures."""
        config = self.config
        if config.inference_mode:
            self.warnings.append(reasons.FROZEN.about())
        if config.megatron_config:
            self.warnings.append(reasons.MEGATRON_NEEDED.about(core=config.megatron_core))
        method = initializations.method_of(config.init_lora_weights, self.release)
        if needed := initializations.NEEDED.get(method):
            self.warnings.append(reasons.INITIALIZATION_NEEDS.about(init=config.init_lora_weights, needed=needed))
        if method in initializations.CHANGING:
            self.warnings.append(reasons.INITIALIZATION_CHANGES_BASE.about(init=config.init_lora_weights))


def _stop_at(refusal: Diagnostic | None) -> None:
    if refusal is not None:
        raise RefusalError(refusal)


def _ancestors(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
