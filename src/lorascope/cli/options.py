"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lorascope.foreign_text import one_line

if TYPE_CHECKING:
    from lorascope.costs.training_run import Training
    from lorascope.model.types import ModelMap

SOURCE = "model type, folder, config.json, GGUF file, Hub id, saved map or plan"
RANK = "rank of recipes, and of rules without a rank (default: 8)"
SERVE = "check that a server supports the adapter: vllm, sglang, or a release such as vllm==0.20.2"


def number_or_text(text: str) -> int | float | str:
    """A number, or else the text itself, to be refused with all other faults."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def add_force(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help=meaning)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the training settings that memory depends on."""
    parser.add_argument("--batch", type=number_or_text, help="sequences per step and GPU (default: 1)")
    parser.add_argument("--seq-len", type=number_or_text, help="tokens per sequence (default: 2048)")
    parser.add_argument("--dtype", help="dtype of the base weights: bf16, fp16 or fp32 (default: bf16)")
    parser.add_argument("--quantization", help="quantization of the base weights: none, 8bit or nf4 (default: none)")
    parser.add_argument("--optimizer", help="adamw, adamw-8bit, sgd, adafactor, … (default: adamw)")
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="recompute activations in the backward pass to save memory",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options on how a source is read."""
    parser.add_argument("--head", default="", help="head to use if the model can have several: causal-lm, …")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--source",
        choices=("auto", "headers", "config"),
        default="auto",
        dest="read",
        help="what to read of a folder or Hub id: the headers of its weights (no torch), its config through "
        "transformers, or headers where there are weights (default: auto)",
    )
    parser.add_argument("--strict", action="store_true", help="refuse a model that is known by its names alone")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="also run the model without weights, and find each module's role by dataflow",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--json", action="store_true", help="print JSON")


def model_of(options: argparse.Namespace) -> ModelMap:
    """The map of the command's source. A terminal's stderr shows the progress of long reads."""
    from lorascope.inspecting import inspect

    shows = sys.stderr.isatty()
    verb = "tracing" if options.trace else "reading"

    def show(text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def progress(done: int, of: int) -> None:
        show(f"{verb} {one_line(options.source)}: {done} of {of}")

    try:
        if shows and options.trace:  # what builds the model takes seconds to load
            show(f"building {one_line(options.source)}")
        return inspect(
            options.source,
            head=options.head,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            read=options.read,
            strict=options.strict,
            trace=options.trace,
            progress=progress if shows else None,
        )
    finally:
        if shows:
            show("")


def training_of(options: argparse.Namespace) -> Training | None:
    """The training settings, if `--memory` or any of them is given."""
    names = ("batch", "seq_len", "dtype", "quantization", "optimizer", "gradient_checkpointing")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not given and not options.memory:
        return None
    from lorascope.costs.training_run import Training

    return Training(**given)
