"""Options that few people set: initializations, variants, token training, a frozen adapter."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding

INITIALIZATION = FindingRule(
    "initialization",
    "warning",
    "init_lora_weights does not fit, or changes more than the adapter",
    "Some initializations change the base weights, so the adapter fits no other copy of the model.",
)
VARIANT = FindingRule(
    "variant",
    "error",
    "a variant of LoRA (DoRA, KaSA, BD-LoRA, …) does not fit",
    "PEFT builds one variant per layer, and each for some kinds of layers only.",
)
TOKENS = FindingRule(
    "tokens",
    "error",
    "trainable_token_indices is not possible",
    "It names rows of an embedding, each trained once.",
)
OPTION_RELEASE = FindingRule(
    "option-release",
    "error",
    "this release of PEFT does not have the option",
    "As an argument it raises, and from a file it is dropped.",
)
LAYER_REPLICATION = FindingRule(
    "layer-replication",
    "note",
    "layer_replication builds a model with other layers",
    "The adapter fits that model only, and servers do not build it.",
)
MEGATRON = FindingRule(
    "megatron",
    "note",
    "megatron_config makes PEFT import Megatron",
    "Without it installed PEFT raises; with it, layers of PyTorch get the same adapters.",
)
UNCOVERED = FindingRule(
    "not-covered",
    "warning",
    "the rules here do not cover an option",
    "Everything else was checked without it, so weights and counts may differ from PEFT's.",
)
FROZEN = FindingRule("frozen", "warning", "inference_mode freezes the adapter", "Nothing trains.")


@finds(INITIALIZATION, VARIANT, TOKENS, OPTION_RELEASE, LAYER_REPLICATION, MEGATRON)
def find_refused_options(context: CheckContext) -> Iterator[Finding]:
    """Rare options that PEFT refuses."""
    for rule, where, fix in (
        (
            INITIALIZATION,
            "init_lora_weights",
            f"Set {context.setting('init_lora_weights', True)}, or leave out what it does not fit.",
        ),
        (VARIANT, "variant", "Set one variant, and only on layers that it fits; leave the others at None."),
        (TOKENS, "trainable_token_indices", "Name an embedding of the model and rows that it has, each once."),
        (
            LAYER_REPLICATION,
            "layer_replication",
            f"Give pairs of layers that the model has, or set {context.setting('layer_replication', None)}.",
        ),
        (MEGATRON, "megatron_config", f"Set {context.setting('megatron_config', None)}."),
        (OPTION_RELEASE, "version", "Update PEFT (pip install -U peft), or leave the option out."),
    ):
        if context.refused_as(rule.code):
            yield rule.finding(where, context.refusal, fix, "error")


@finds(INITIALIZATION, VARIANT, FROZEN, UNCOVERED)
def find_doubtful_options(context: CheckContext) -> Iterator[Finding]:
    """Rare options that do more or less than most people mean."""
    answers = {
        "initialization": (
            INITIALIZATION,
            "init_lora_weights",
            f"Nothing to do if that is meant; otherwise set {context.setting('init_lora_weights', True)}.",
        ),
        "variant": (VARIANT, "variant", "Load the model without quantization, or leave the variant out."),
        "not-covered": (
            UNCOVERED,
            "adapter configuration",
            "Ask PEFT itself: get_peft_model(…).print_trainable_parameters(). Or leave the option out.",
        ),
        "frozen": (FROZEN, "inference_mode", f"Set {context.setting('inference_mode', False)} to train."),
    }
    for warning in context.resolution.warnings:
        if warning.code in answers:
            rule, where, fix = answers[warning.code]
            yield rule.finding(where, warning, fix, "warning")


@finds(LAYER_REPLICATION, MEGATRON)
def find_other_machinery(context: CheckContext) -> Iterator[Finding]:
    """Options that change the model or the layers around the adapter."""
    for warning in context.warnings_of("layer-replication"):
        yield LAYER_REPLICATION.finding("layer_replication", warning, "Nothing to do if that is meant.")
    for warning in context.warnings_of("megatron"):
        fix = f"Set {context.setting('megatron_config', None)}, unless the model is Megatron's."
        yield MEGATRON.finding("megatron_config", warning, fix)
