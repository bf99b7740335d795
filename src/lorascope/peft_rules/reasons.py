"""Reasons for which PEFT refuses a configuration, warns, or surprises silently."""

from __future__ import annotations

from lorascope.peft_rules.diagnostics import Diagnostic, Reason, array, listed_names

# The code of a refusal that is not PEFT's: the rules do not say what it would do.
NOT_COVERED = "not-covered"

_HINTS = {
    "regex": ' A string is a regular expression for the whole name: give ["{modules}"] or ".*[.]{modules}".',
    "regex-alone": ' A string is a regular expression for the whole name: give ".*[.]{modules}".',
    "start": " PEFT before 0.21 does not find a layers_pattern at the very start of a name.",
    "layers": " layers_to_transform may have dropped all; a layers_pattern says where the layer number stands.",
    "packed": " The layers are GPTQModel's, which all-linear does not match: name the modules.",
}


def _default_targets(diagnostic: Diagnostic) -> str:
    values = diagnostic.values
    besides = ", besides the target_parameters" if values["parameters"] else ""
    return f"target_modules is missing, so PEFT adapts its default for {values['model_type']}: {values['targets']}{besides}."


def _nothing_matched(diagnostic: Diagnostic) -> str:
    values = diagnostic.values
    modules, parameters = values["modules"], values["parameters"]
    shown = repr(modules[:200]) if isinstance(modules, str) else array(modules)
    text = f"Nothing is adapted: target_modules={shown}"
    if parameters:
        text += f", target_parameters={array(parameters)}"
    text += " match nothing that is not excluded."
    return text + _HINTS.get(values["hint"], "").format(modules=modules)


def _tied(diagnostic: Diagnostic) -> str:
    others = listed_names(diagnostic.values["others"]) or "another adapted module"
    return (
        f"{listed_names(diagnostic.names)} shares its weight with {others}: only the named module is adapted, and merging "
        "changes or unties the shared weight."
    )


# The model.

UNWRAPPABLE = Reason("refused", "{why}")
NO_GENERATION = Reason(
    "task-type",
    "{architecture} has no prepare_inputs_for_generation, which PEFT needs for task_type={task_type:literal}. Leave "
    'task_type out, or use "FEATURE_EXTRACTION".',
)
WRAPPER_TOO_OLD = Reason(
    "task-type",
    'PEFT before 0.21.2 cannot wrap a model of transformers 5.18 or later with task_type="SEQ_2_SEQ_LM". Update PEFT, '
    "or leave task_type out.",
)

# Settings among themselves.

UNKNOWN_TASK_TYPE = Reason(
    "task-type",
    "PEFT has no task type {task_type:literal}. It has {known:listed}.",
)
PARAMETERS_AS_STRING = Reason(
    "string-not-list", "target_parameters must be a list of names; a string is not supported."
)
LAYERS_WITH_STRING = Reason("layers-with-string", "{option} does not go with a string in target_modules. Give a list.")
PATTERN_WITHOUT_LAYERS = Reason("layers-pattern", "layers_pattern needs layers_to_transform.")
OPTION_TOO_NEW = Reason(
    "option-release",
    "PEFT before {release} has no {option}: as an argument it raises, from a file it is dropped.",
)
DORA_WITH_BIAS = Reason("dora", "lora_bias=True and use_dora=True exclude each other.")
UNKNOWN_BIAS = Reason(
    "bias",
    'PEFT does not know bias={bias:literal}. It takes "none", "all" and "lora_only".',
)
NO_PROBABILITY = Reason("dropout", "lora_dropout={dropout} is no probability.")
TYING_NOT_COVERED = Reason(
    NOT_COVERED,
    "ensure_weight_tying with a tied embedding among the targets or the saved modules, which PEFT then moves from one "
    "to the other and ties.",
)

# The model that layer_replication builds.

REPLICATED = Reason(
    "layer-replication",
    "layer_replication makes {layers} layers of {count}: each has adapters of its own, and the copies share their base "
    "weights.",
)
REPLICATION_WITHOUT_LAYERS = Reason(
    "layer-replication",
    "layer_replication looks for a list of layers called layers, encoder.layer or h at the innermost model, and this one "
    "has none.",
)
REPLICATION_OF_OTHERS = Reason(
    "layer-replication",
    "layer_replication takes pairs of the first layer and the one after the last, not {given}.",
)
REPLICATION_BEYOND = Reason(
    "layer-replication", 'layer_replication asks for layer {number} of "{name}", which has {count}.'
)
REPLICATION_TOO_DEEP = Reason(NOT_COVERED, "layer_replication with more than {most:,} layers.")

# Megatron.

MEGATRON_NEEDED = Reason(
    "megatron",
    "megatron_config makes PEFT import {core:literal}, and raise where that is not installed. Layers of PyTorch get the "
    "same adapters with it.",
)
MEGATRON_FOREIGN = Reason("megatron", "megatron_core={core:literal} is refused: PEFT imports from megatron. only.")
MEGATRON_DORA = Reason("megatron", "megatron_config and use_dora=True exclude each other.")

# Patterns.

BAD_PATTERN = Reason("bad-pattern", "{pattern} is not a regular expression: {why}")
NO_LAYER_NUMBER = Reason("bad-pattern", 'layers_pattern "{pattern}" yields {text!r}, no layer.')
EMPTY_NAME = Reason("bad-pattern", "a list of 20 or more target modules must not contain an empty string.")

# Targets.

NO_DEFAULT = Reason(
    "default-targets",
    'PEFT has no default for model type "{model_type}". Give target_modules or target_parameters.',
)
DEFAULT_TARGETS = Reason("default-targets", _default_targets)
DEFAULT_REWRITTEN = Reason(
    "default-targets",
    "PEFT's defaults do not apply to {model_type}: on this model type its rewrite for fused experts turns a missing "
    "target_modules into an empty list. Name the modules.",
)
CONDENSED = Reason(
    "condensed",
    "PEFT shortens a list of {least} or more names to suffixes. layers_to_transform applies to a suffix, and "
    "not to a full name.",
)
NOTHING_MATCHED = Reason("no-match", _nothing_matched)
UNMATCHED_MODULES = Reason("no-match", "No module is called {names:listed}: PEFT ignores such entries silently.")
UNMATCHED_SOME_PARAMETERS = Reason(
    "no-match", "No parameter is called {names:listed}: PEFT ignores such entries silently."
)
UNMATCHED_ALL_PARAMETERS = Reason("no-match", "target_parameters {names:listed} match no parameter.")
EXCLUDE_UNMATCHED = Reason("exclude-unmatched", "exclude_modules matches no module.")
PATTERN_UNMATCHED = Reason("pattern-unmatched", "{option} has keys that match nothing adapted: {names:listed}.")
PATTERN_FALSE_ALARM = Reason(
    "pattern-false-alarm",
    "PEFT will warn that the {option} keys {names:listed} were ignored. They were not: they match parameters.",
)

# Layers.

LAYERS_DROPPED = Reason(
    "layers-dropped",
    "{names:listed} match target_modules but lie in no layer that PEFT finds, so layers_to_transform drops them "
    "silently. Give their full names, or a layers_pattern.",
)
LAYERS_IGNORED = Reason(
    "layers-ignored",
    "PEFT ignores layers_to_transform for full names: {names:listed}.",
)
LAYERS_IGNORED_BY_PARAMETERS = Reason(
    "layers-ignored",
    "layers_to_transform and exclude_modules do not apply to target_parameters: every match is adapted. Spell the "
    "layer in the entry: layers.3.mlp.experts.down_proj",
)
LAYERS_ABSENT = Reason(
    "layers-absent", "layers_to_transform names layers without a target, ignored silently: {layers:array}."
)

# One module or parameter.

GUARDED_MODULE = Reason(
    "unsupported",
    'PEFT refuses "{name}": on {model_type} no module called out_proj or conv1d may be adapted. Leave it out of '
    "target_modules, or exclude it.",
)
GUARDED_PARAMETER = Reason(
    "unsupported",
    'PEFT refuses "{name}": on {model_type} nothing of a module called out_proj or conv1d may be adapted.',
)
NO_ADAPTER = Reason(
    "unsupported",
    'target_modules matches "{name}", a {class_name}, for which PEFT has no adapter. Name the linear layers within it, '
    "or its parameters in target_parameters.",
)
CONSTRUCTOR_MISMATCH = Reason(
    "unsupported",
    'target_modules matches "{name}". PEFT cannot build an adapter for a {class_name}: it does so with the layer\'s own '
    "class, whose arguments come in another order. Leave it out.",
)
OTHER_WIDTHS = Reason("unsupported", '"{name}" has other widths for keys and values, which PEFT does not support.')
PARAMETRIZED = Reason(
    "unsupported", '"{name}" has a parametrized weight, which PEFT cannot replace in a MultiheadAttention.'
)
NO_WEIGHT = Reason("unsupported", "{module} has no weight of its own.")
UNCOUNTABLE = Reason("unsupported", "PEFT has no adapter for a {class_name}.")
ROOT_PARAMETER = Reason("unsupported", '"{name}" is a parameter of the model itself, which PEFT cannot wrap.')
OTHER_DIMENSIONS = Reason(
    "unsupported",
    'target_parameters matches "{name}" of shape {shape}; PEFT adapts 2-D and 3-D parameters only.',
)
PARAMETERS_OPTIONS = Reason(
    "parameters-options", 'target_parameters matches "{name}", and parameters do not go with {option}.'
)
TWICE = Reason(
    "twice",
    '"{owner}" would be adapted as a module and through its parameter "{name}". Take it out of target_modules (an empty '
    "list adapts no module) or out of target_parameters.",
)
TWICE_BELOW = Reason(
    "twice",
    'PEFT cannot adapt "{name}" after a parameter of "{owner}", whose wrapper hides it. Leave one of them out.',
)
RANK_NOT_POSITIVE = Reason(
    "rank-invalid", 'The rank of "{name}" is {rank}; PEFT takes positive ranks only. To leave it out, exclude it.'
)
RANK_NOT_OF_GROUPS = Reason(
    "rank-invalid",
    '"{name}" is a convolution with {groups} groups: its rank must be a multiple of that, not {rank}.',
)
TOO_LARGE = Reason("rank-invalid", 'No tensor can be as large as the adapter of "{name}" would be.')
EMBEDDING_BIAS = Reason("bias", 'lora_bias=True is not supported for embeddings such as "{name}".')
ATTENTION_DORA = Reason("dora", 'DoRA is not supported for "{name}", a MultiheadAttention.')
REPACKED_DORA = Reason("dora", 'DoRA is not supported for "{name}", which is stored as {quantization}.')
GROUPED_DORA = Reason(
    "dora", '"{name}" has {groups} groups: PEFT takes its norms for DoRA over matrices that do not fit them.'
)
UNMERGEABLE = Reason("unmergeable", '"{name}" has {groups} groups: its adapter cannot be merged.')
BIAS_OF_NONE = Reason("bias", "lora_bias=True on layers without a bias: such adapters cannot be merged.")
ADAPTED_BIAS = Reason("bias", '"{name}" is a bias of shape {shape}, which PEFT adapts as if it were a weight.')
FLAG_BIAS = Reason(
    "bias",
    'bias={bias:literal} fails on "{name}": in a {class_name}, bias is a flag and not a parameter. Set bias="none".',
)
TIED = Reason("tied", _tied)

# Modules on which an adapter does nothing, or breaks the forward. A name stands before the text where it is a warning.

BREAKS_FORWARD = Reason(
    "dead-or-crashing",
    "{class_name} breaks with an adapter: {why}. PEFT creates the adapter without an error, and the first forward "
    "fails. Leave it out.",
    before="{name}: ",
)
NEVER_CALLED = Reason(
    "dead-or-crashing",
    "An adapter here is dead: MultiheadAttention reads its weight and never calls it. Adapt the "
    'MultiheadAttention "{owner}" itself; PEFT then adapts its input and output projections.',
    before="{name}: ",
)
OWN_POSITIONS = Reason(
    "dead-or-crashing",
    "{class_name} computes its own positions, but PEFT's adapter looks up the rows of the module's input: the "
    "first forward fails. Leave it out, or train it in full with modules_to_save.",
    before="{name}: ",
)
READ_ONLY = Reason(
    "dead-or-crashing",
    "An adapter here is dead: {owner} reads this weight and never calls the module, so the adapter gets no gradient. Leave "
    "it out.",
    before="{name}: ",
)
READ_UNLESS_QUANTIZED = Reason(
    "dead-or-crashing",
    "An adapter here is dead: {owner} reads this weight and calls the module only where the model is loaded quantized, so "
    "the adapter gets no gradient. Leave it out.",
    before="{name}: ",
)
UNCALLED = Reason(
    "dead-or-crashing",
    "An adapter here is dead: a traced forward pass read this weight in {owner} and never called the module. Leave it out.",
    before="{name}: ",
)
NEVER_CALLED_TIE = Reason(
    "dead-or-crashing",
    "An adapter here is dead: {owner} never calls this module. Another module with the same tensor is called, so adapt "
    "that one.",
    before="{name}: ",
)
WITHOUT_GRADIENT = Reason(
    "dead-or-crashing",
    "An adapter here is dead: {owner} only chooses by what this layer computes, so no gradient comes back. Leave it out.",
    before="{name}: ",
)
# By what fails, as the table of dead weights says it.
CRASHES = {
    "keywords": Reason(
        "dead-or-crashing",
        "An adapter here breaks the forward pass of {owner}: the call has keyword arguments alone, which PEFT's wrapper does "
        "not take. Leave it out.",
        before="{name}: ",
    ),
    "attribute": Reason(
        "dead-or-crashing",
        'An adapter here breaks the forward pass: the code around it asks for the attribute "{about}", which PEFT\'s wrapper '
        "does not have. Leave it out.",
        before="{name}: ",
    ),
    "error": Reason(
        "dead-or-crashing",
        "An adapter here breaks the forward pass of {owner}: {about}. Leave it out.",
        before="{name}: ",
    ),
}
LEFT_TO_KERNEL = Reason(
    "dead-with-kernels",
    "With the fused kernels of {library} installed, an adapter here is dead: in training {owner} hands this weight to "
    "{kernel} and never calls the module. To adapt it without these kernels, name its part in a rule: {selector}.",
)
READ_BY_KERNEL = Reason(
    "dead-with-kernels",
    "With the fused kernels of {library} installed, an adapter here is dead, because in training {owner} hands the weight "
    "to {kernel} and never calls the module. Without these kernels it trains.",
)
FAST_PATH = Reason(
    "ignored-in-eval",
    "Outside of training, torch's TransformerEncoderLayer takes a fast path that reads these weights past an adapter, "
    "without an error (batch_first and an even number of heads).",
)

# Weights that PEFT cannot adapt whatever the configuration.

WEIGHT_OF_ROOT = Reason(
    "dead-or-crashing",
    "PEFT cannot wrap a parameter of the model itself, because there is no module around it. Train it in full in your "
    "own code, or leave it out.",
)
WEIGHT_GUARDED = Reason(
    "dead-or-crashing",
    "PEFT refuses every module called out_proj or conv1d on {model_type}, because the fused kernels read those weights "
    "past an adapter. Adapt in_proj instead.",
)
WEIGHT_STORED = Reason("dead-or-crashing", "Stored as {quantization}: {why}")
WEIGHT_WITHOUT_MODULE = Reason(
    "dead-or-crashing",
    'The model has no module "{module}", so PEFT has nothing to wrap.',
)
WEIGHT_MISMATCHED = Reason(
    "dead-or-crashing",
    "PEFT cannot build an adapter for a {class_name}: it does so with the layer's own class, whose arguments come in "
    "another order. Leave it out.",
)
WEIGHT_OF_OTHER_WIDTHS = Reason(
    "dead-or-crashing",
    "PEFT adapts a MultiheadAttention only where queries, keys and values have the same width. Train it in full with "
    "modules_to_save, or leave it out.",
)
WEIGHT_OF_OTHER_KIND = Reason(
    "dead-or-crashing",
    "PEFT has no adapter for a {class_name}. Where it has a 2-D or 3-D parameter of its own, that can be adapted through "
    "target_parameters; otherwise train it in full with modules_to_save.",
)
WEIGHT_IN_GROUPS = Reason(
    "dead-or-crashing",
    "The rank of a convolution must be a multiple of its {groups} groups, and that is already its full rank. Train it in "
    "full with modules_to_save, or leave it out.",
)
WEIGHT_OF_OTHER_DIMENSIONS = Reason(
    "dead-or-crashing",
    "PEFT adapts parameters of two or three dimensions, not of {dimensions}. Train it in full with modules_to_save, or "
    "leave it out.",
)
WEIGHT_NOT_OF_EXPERTS = Reason(
    "dead-or-crashing",
    "PEFT takes the first dimension of a 3-D parameter for experts, and here it is not: shape {shape} belongs to one "
    "projection. Train the module in full with modules_to_save, or leave it out.",
)

# The rewrite for fused experts.

HALF_OF_FUSED = Reason(
    "moe-rewrite",
    '{model_type} fuses "{present}" and "{missing}" into {fused}: PEFT takes both or neither. Name "{missing}" as well, or '
    'give target_parameters=["mlp.experts.{fused}"].',
)
REWRITTEN = Reason(
    "moe-rewrite",
    "PEFT rewrites {names:listed} for {model_type} into target_parameters {parameters:listed}: no module of that name gets "
    "an adapter, every parameter of the new name does.",
)
REWRITTEN_TWICE_THE_RANK = Reason(
    "moe-rewrite",
    "PEFT rewrites {names:listed} for {model_type} into target_parameters {parameters:listed}: no module of that name gets "
    "an adapter, every parameter of the new name does, {fused} at twice the rank and alpha.",
)
STRING_IN_LETTERS = Reason(
    "moe-rewrite",
    'PEFT before 0.20 takes the string "{pattern}" apart into single letters on this model type. Give a list of names, or '
    "update PEFT.",
)
STRING_TO_NAMES = Reason(
    "moe-rewrite",
    'PEFT resolves "{pattern}" to the last components of the names it matches on this model type: a restriction to some '
    "layers or towers is lost. Give a list of names.",
)

# modules_to_save.

SAVED_WRAPPED = Reason("saved", 'modules_to_save matches "{name}", which already carries an adapter.')
SAVED_BELOW_ADAPTER = Reason("saved", 'modules_to_save matches "{name}", which lies directly within an adapter.')
SAVED_CONTAINER = Reason("saved", 'modules_to_save matches "{name}", a {class_name}, which has no forward to copy.')
SAVED_WITHIN_ADAPTERS = Reason("saved", "modules_to_save=[{entries}] also matches names within PEFT's own adapters.")
SAVED_UNCOPYABLE = Reason(
    "saved",
    'modules_to_save cannot copy "{name}", which holds a tensor that it computed (pruning, or torch.nn.utils.weight_norm).',
)
# With these the count of trainable parameters is an estimate.
SAVED_NESTED = Reason(
    "saved-nested",
    "The count of trainable parameters is an estimate: {names:listed} lie within modules that modules_to_save copies "
    "whole, and PEFT may train a second copy that is never used. Name the outer modules only.",
)
SAVED_WHOLE_MODEL = Reason(
    "saved-nested",
    "The count of trainable parameters is an estimate: with task_type={task_type} PEFT also takes its own name "
    "base_model.model for an entry of modules_to_save and copies the whole model. Name the modules below it.",
)
SAVED_LOOSE = Reason(
    "saved-loose",
    "modules_to_save goes by the end of the name, without a dot: it also copies {names:listed}.",
)
SAVED_UNMATCHED = Reason(
    "saved-unmatched", "modules_to_save entries that match no module, ignored silently: {names:listed}."
)

# trainable_token_indices.

TOKENS_SAVED = Reason("tokens", '"{name}" is in modules_to_save and in trainable_token_indices. Leave it in one.')
TOKENS_NAMELESS = Reason(
    "tokens",
    'trainable_token_indices names "{name}", and no module has that name.',
)
TOKENS_ADAPTED = Reason("tokens", 'trainable_token_indices names "{name}", which carries an adapter.')
TOKENS_OF_OTHERS = Reason(
    "tokens",
    'trainable_token_indices names "{name}", which is a {class_name}, not an embedding.',
)
TOKENS_BEYOND = Reason("tokens", '"{name}" has {rows} rows, and trainable_token_indices asks for {row}.')
TOKENS_UNEQUAL = Reason("tokens", "ensure_weight_tying needs the same token indices for the tied {names:joined}.")
TOKENS_WITHIN_SAVED = Reason(
    NOT_COVERED,
    'trainable_token_indices for "{name}", which lies within a saved module or is named twice.',
)
TOKENS_SAVED_TWICE = Reason(
    NOT_COVERED,
    'trainable_token_indices with a saved "{name}" and task_type={task_type}, which saves twice.',
)

# Variants of the adapter.

VARIANTS_NOT_COVERED = Reason(NOT_COVERED, "{options:joined} is covered by the rules of PEFT 0.20 and later only.")
GPTQ_NOT_COVERED = Reason(NOT_COVERED, '{options:joined} on "{name}", a layer of GPTQModel.')
BNB_NOT_COVERED = Reason(NOT_COVERED, '{options:joined} on "{name}", a layer of bitsandbytes.')
VARIANT_IGNORED = Reason(
    "variant",
    "PEFT ignores {option} on layers of bitsandbytes: they get plain adapters.",
)
VARIANTS_EXCLUSIVE = Reason("variant", "{options:joined} exclude each other.", before='"{name}": ')
VARIANT_OF_OTHER_KINDS = Reason("variant", "{option} does not go with a {class_name}.", before='"{name}": ')
VARIANT_OF_PARAMETER = Reason("variant", "{option} does not go with target_parameters.", before='"{name}": ')
NOT_POSITIVE = Reason("variant", "{option}: {setting} must be more than 0.")
NEGATIVE = Reason("variant", "{option}: {setting} must not be negative.")
BDLORA_NO_TEXTS = Reason(
    "variant", "use_bdlora: target_modules_bd_a and target_modules_bd_b must be lists of texts.", before='"{name}": '
)
BDLORA_OVERLAP = Reason("variant", "use_bdlora names {text!r} for both A and B.")
BDLORA_BOTH = Reason("variant", 'use_bdlora: "{name}" matches both A and B.', before='"{name}": ')
BDLORA_NEITHER = Reason(
    "variant", 'use_bdlora: "{name}" matches neither A nor B, which match_strict=False allows.', before='"{name}": '
)
BDLORA_CONV1D = Reason("variant", "use_bdlora does not go with a Conv1D.", before='"{name}": ')
BDLORA_BLOCKS = Reason(
    "variant",
    "use_bdlora: the rank {rank} and the dimension {length} must be multiples of nblocks={blocks!r}.",
    before='"{name}": ',
)
VELORA_START = Reason("variant", "velora_config: init_type {start!r} is none of {known:listed}.")
VELORA_QUANTIZED = Reason("variant", "velora_config does not go with a quantized layer.", before='"{name}": ')
ARROW_ALONE = Reason(
    "variant",
    "arrow_config raises in get_peft_model: peft.create_arrow_model alone makes such adapters.",
    before='"{name}": ',
)
KASA_CONV1D = Reason("variant", "kasa_config does not go with a Conv1D.", before='"{name}": ')
KASA_RANK = Reason(
    "variant",
    "kasa_config takes ranks below the smaller dimension, {side}, not {rank}.",
    before='"{name}": ',
)
MONTECLORA_SETTING = Reason("variant", "monteclora_config has no setting {setting!r}.")
MONTECLORA_SAMPLES = Reason("variant", "monteclora_config: num_samples must be a whole number.", before='"{name}": ')
EVA_RHO = Reason("variant", "eva_config: rho must be 1 or more.")
EVA_TAU = Reason("variant", "eva_config: tau must be from 0 to 1.")

# Initializations.

INITIALIZATION_NOT_COVERED = Reason(
    NOT_COVERED, 'init_lora_weights={init:literal} on "{name}", whose module has a weight of {dimensions} dimensions.'
)
INITIALIZATION_NEEDS = Reason("initialization", "init_lora_weights={init:literal}: {needed}.")
INITIALIZATION_CHANGES_BASE = Reason(
    "initialization",
    "init_lora_weights={init:literal} changes the base weights, so the adapter fits no other copy of them. "
    "Save it with path_initial_model_for_weight_conversion.",
)
UNKNOWN_INITIALIZATION = Reason(
    "initialization",
    "PEFT does not know init_lora_weights={init!r}.",
    before='"{name}": ',
)
UNKNOWN_TO_CONVOLUTION = Reason(
    "initialization",
    "PEFT does not know init_lora_weights={init!r} for a convolution.",
    before='"{name}": ',
)
LOFTQ_WITHOUT_CONFIG = Reason(
    "initialization",
    'init_lora_weights="loftq" needs a loftq_config, such as LoftQConfig(loftq_bits=4).',
)
LOFTQ_EMBEDDING = Reason("initialization", 'init_lora_weights="loftq" raises for embeddings.', before='"{name}": ')
LOFTQ_MISSING = Reason(
    "initialization",
    "loftq_config lacks {settings:joined}.",
    before='"{name}": ',
)
LOFTQ_BITS = Reason(
    "initialization",
    "loftq_bits={bits!r} is not 4 or 8.",
    before='"{name}": ',
)
LOFTQ_ITERATIONS = Reason(
    "initialization",
    "loftq_iter={count!r} is not a positive number.",
    before='"{name}": ',
)
BIAS_WITH_INITIALIZATION = Reason(
    "initialization",
    "lora_bias=True goes with init_lora_weights true or false only, not with {init!r}.",
)
INITIALIZATION_OF_ATTENTION = Reason(
    "initialization",
    "init_lora_weights={init:literal} needs a weight, and a MultiheadAttention has none of that name.",
    before='"{name}": ',
)
INITIALIZATION_WITH_DORA = Reason(
    "initialization",
    "use_dora does not go with init_lora_weights={init:literal} on a Conv1D: PEFT swaps its factors.",
    before='"{name}": ',
)
INITIALIZATION_OF_PARAMETER = Reason(
    "initialization", "init_lora_weights={init:literal} does not go with target_parameters.", before='"{name}": '
)
INITIALIZATION_WITHOUT_WEIGHT = Reason(
    "initialization",
    "init_lora_weights={init:literal} reads the weight of the module around a parameter, and a {class_name} has none.",
    before='"{name}": ',
)
INITIALIZATION_OF_VECTOR = Reason(
    "initialization",
    "init_lora_weights={init:literal} decomposes the weight of the module around a parameter, which is a vector.",
    before='"{name}": ',
)
INITIALIZATION_PACKED = Reason(
    "initialization",
    "init_lora_weights={init:literal} needs an unpacked weight, and this one is quantized.",
    before='"{name}": ',
)
INITIALIZATION_RANK = Reason(
    "initialization",
    "init_lora_weights={init:literal} takes ranks up to the smaller dimension, {side}, not {rank}.",
    before='"{name}": ',
)
ODD_RANK = Reason(
    "initialization", 'init_lora_weights="orthogonal" takes even ranks only, not {rank}.', before='"{name}": '
)
FROZEN = Reason(
    "frozen",
    "inference_mode=True freezes the adapter: nothing trains.",
)
