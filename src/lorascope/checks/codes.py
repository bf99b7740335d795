"""Every code that a finding can have, and what it means."""

from __future__ import annotations

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    # The configuration as a whole.
    "refused": "PEFT, or the trainer, raises; the findings after it say what to change",
    "bad-pattern": "a text is no regular expression",
    "unknown-key": "a key that PEFT or the trainer does not know",
    "ignored-key": "a key that the trainer knows and does nothing with here",
    "abbreviated": "an option that the trainer's parser completes",
    "no-adapter": "the trainer's configuration asks for no adapter",
    "trainer-filter": "the trainer's own rules add or drop targets",
    "version-dependent": "other releases of PEFT read it differently",
    "origin": "what should be known of the files",
    # Entries.
    "no-match": "an entry matches nothing",
    "regex-in-list": "a regular expression as an entry of a list, where PEFT takes names",
    "string-not-list": "a name as a text, where PEFT takes one regular expression for the whole name",
    "digit-name": "an entry that is a number, and so matches layers",
    "unsupported": "an entry matches what PEFT has no adapter for",
    "twice": "one weight as a module and as a parameter",
    "covered": "an entry that another one covers",
    "condensed": "a list of 20 names and more, which PEFT shortens to endings",
    "default-targets": "target_modules is missing, so that PEFT decides",
    # What is reached.
    "outside": "weights of towers or connectors are adapted",
    "router": "a router is adapted",
    "head": "an embedding or a head is adapted",
    "left-out": "weights that do what adapted ones do are not adapted",
    "dead-or-crashing": "PEFT makes an adapter that does nothing, or breaks the forward pass",
    "moe-rewrite": "PEFT rewrites names for fused experts",
    "tied": "an adapted or copied weight shares its tensor with another",
    "quantized": "what the stored weights need",
    "unmergeable": "an adapter that cannot be merged",
    "names-only": "the model is known by names alone",
    "traced-doubt": "no forward pass confirms what an adapted weight does",
    # Ranks and alphas.
    "pattern-unmatched": "a key of rank_pattern or alpha_pattern matches nothing adapted",
    "pattern-shadowed": "a key never counts, because an earlier one matches first",
    "pattern-prefix": "a key begins with the prefix that PEFT adds only on saving",
    "pattern-false-alarm": "PEFT warns of a key that does count",
    "rank-invalid": "a rank that cannot be",
    "scale": "a scale of nothing, or scales that lie far apart",
    # Layers.
    "layers-absent": "layers that the model does not have",
    "layers-dropped": "entries that lie in no layer that PEFT finds",
    "layers-ignored": "targets that layers_to_transform does not restrict",
    "layers-towers": "the layer's number counts in several towers",
    "layers-with-string": "layers_to_transform beside a text in target_modules",
    "layers-pattern": "a layers_pattern that finds nothing, or stands alone",
    # Options.
    "parameters-options": "dropout, DoRA or biases beside target_parameters",
    "dropout": "a dropout that cannot be",
    "dora": "DoRA where it does not fit",
    "bias": "a bias setting that cannot be, or trains something else than meant",
    "initialization": "init_lora_weights that does not fit, or that changes more than the adapter",
    "variant": "a variant of LoRA (DoRA, KaSA, BD-LoRA, …) where it does not fit",
    "tokens": "trainable_token_indices that cannot be",
    "option-release": "an option that this release of PEFT does not have",
    "frozen": "inference_mode freezes the adapter",
    "task-type": "a task type that does not fit the head, or is missing",
    "exclude-unmatched": "exclude_modules excludes nothing",
    "saved": "modules_to_save names what PEFT cannot copy",
    "saved-unmatched": "an entry of modules_to_save matches nothing",
    "saved-loose": "an entry of modules_to_save matches more than it says",
    "saved-nested": "modules_to_save copies a module and one within it",
    "saved-shadows": "modules_to_save takes targets away",
    "saved-copy": "modules_to_save copies much",
    # Files of an adapter.
    "other-base": "the adapter was made for another model",
    "tensor-missing": "a tensor that the configuration asks for is not in the file",
    "tensor-unexpected": "a tensor that nothing asks for",
    "tensor-shape": "a tensor of another shape than the model's",
    "tensor-rank": "a tensor of another rank than the configuration's",
    # Servers.
    "not-servable": "the server does not take it",
}
