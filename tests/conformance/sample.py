"""A sample of architectures through whichever PEFT and transformers are installed: run as a program by `test_versions`.

Prints one JSON object: versions, and per architecture and rule the verdict.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

# One for each way in which architectures differ for PEFT: fused, low-rank, experts (rewritten and not), state space,
# hybrid, encoder, encoder-decoder, towers, wrappers, ties, Conv1D.
SAMPLE = {
    "causal-lm": [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "phi",
        "phi3",
        "gpt2",
        "gpt_neox",
        "falcon",
        "bloom",
        "opt",
        "mpt",
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "deepseek_v2",
        "deepseek_v3",
        "olmoe",
        "glm4_moe",
        "ernie4_5_moe",
        "gpt_oss",
        "llama4_text",
        "granitemoe",
        "jetmoe",
        "dbrx",
        "mamba",
        "mamba2",
        "jamba",
        "bamba",
        "falcon_h1",
        "recurrent_gemma",
        "rwkv",
        "zamba2",
        "xlnet",
    ],
    "image-text-to-text": ["llava", "qwen2_vl", "qwen2_5_vl", "idefics3", "paligemma", "mllama", "blip-2"],
    "seq2seq-lm": ["t5", "bart", "pegasus_x", "led"],
    "masked-lm": ["bert", "roberta", "deberta-v2", "albert"],
}


def main() -> None:
    """Measures what of the sample this transformers has."""
    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    import peft
    import transformers

    from lorascope.sources.transformers.meta_model import map_module
    from tests.conformance.verdicts import measure_plans
    from tests.helpers.shallow_models import shorten

    transformers.logging.set_verbosity_error()
    verdicts = {}
    unbuilt = {}
    for head, wanted in SAMPLE.items():
        for entry in architectures.entries(head):
            if entry.model_type not in wanted:
                continue
            try:
                module = shorten(entry.build())
            except Exception as error:  # an old release cannot always build its own default configuration
                unbuilt[f"{head}/{entry.label}"] = str(error)
                continue
            model = map_module(module, model=entry.label, head=entry.head)
            outcomes = list(measure_plans(module, model, peft.__version__))
            verdicts[f"{head}/{entry.label}"] = {o.what: [o.verdict, o.reason] for o in outcomes}
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    print(json.dumps({**versions, "verdicts": verdicts, "unbuilt": unbuilt}))


if __name__ == "__main__":
    main()
