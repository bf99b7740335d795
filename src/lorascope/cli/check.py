"""`lorascope check`."""

from __future__ import annotations

import argparse
import os

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import SERVE, SOURCE, add_source, model_of, number_or_text
from lorascope.cli.output import print_json, print_text, remark
from lorascope.errors import LorascopeError
from lorascope.foreign_text import one_line, shell_word

EXAMPLES = """examples:
  lorascope check ./my-adapter                   on the base model that it names
  lorascope check mistral ./my-adapter           exit code 1 for an error or a warning
  lorascope check mixtral q_proj v_proj gate_proj up_proj down_proj
  lorascope check ./my-model 'model\\.layers\\.\\d+\\.self_attn\\.(q|v)_proj'
  lorascope check ./my-model org/adapter         an adapter on the Hub
  lorascope check qwen2_vl axolotl.yaml          what axolotl would adapt
  lorascope check mistral ./my-adapter --serve sglang
  lorascope check mistral --as trl -- --lora_target_modules q_proj v_proj --lora_r 16"""
SEVERAL = "adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="MODEL", help=f"{SOURCE}; left out, it is the base that ADAPTER names")
    parser.add_argument(
        "adapter",
        nargs="*",
        metavar="ADAPTER|NAME|FILE",
        help="an adapter's folder, file or Hub id; a trainer's config; target module names, or one regular expression",
    )
    parser.add_argument(
        "--as",
        default="",
        dest="trainer",
        metavar="TRAINER",
        help="trainer whose configuration it is (default: detected)",
    )
    parser.add_argument("--peft", default="", help="PEFT release whose rules apply: 0.18 to 0.21 (default: the newest)")
    parser.add_argument(
        "--rank", type=number_or_text, default=8, help="rank for target modules given by name (default: 8)"
    )
    parser.add_argument(
        "--alpha", type=number_or_text, default=16, help="alpha for target modules given by name (default: 16)"
    )
    parser.add_argument("--serve", default="", metavar="SERVER", help=SERVE)
    parser.add_argument("--all", action="store_true", dest="everything", help="show every finding and row")
    add_source(parser)


def run(options: argparse.Namespace) -> int:
    """Print what each given adapter or configuration really does."""
    from lorascope.checks.check import check

    given = bool(options.adapter)
    words = _with_base(options)
    try:
        model = model_of(options)
    except LorascopeError as error:
        if given:
            raise
        other = f"To check on another base: lorascope check MODEL {shell_word(words[0])}"
        hint = f"{error.hint.rstrip('.')}. {other}" if error.hint else other
        raise LorascopeError(*error.faults, where=error.where, hint=hint) from error
    # Several files, as a pre-commit hook gives them, are checked one by one; several words are names.
    inputs = [(word,) for word in words] if len(words) > 1 and all(map(os.path.exists, words)) else [tuple(words)]
    inputs = [expanded for words in inputs for expanded in _expanded(words)]
    checks = [
        check(
            model,
            *words,
            peft=options.peft,
            trainer=options.trainer,
            rank=options.rank,
            alpha=options.alpha,
            serve=options.serve,
        )
        for words in inputs
    ]
    report_gaps(model, shown=not options.json)  # a finding of every check too
    if options.json:
        from lorascope.reports.json import check_json

        bodies = [check_json(check) for check in checks]
        print_json(bodies if len(bodies) > 1 else bodies[0])
    else:
        from lorascope.reports.check import check_text

        print_text("\n\n".join(check_text(check, everything=options.everything) for check in checks))
    return 1 if any(check.matters for check in checks) else 0


def _with_base(options: argparse.Namespace) -> list[str]:
    """What to check; with the base model that it names as the source, where none is given."""
    words: list[str] = options.adapter
    if options.trainer or len(words) > 1:
        return words
    from lorascope.checks.recorded_base import adapters_in, is_adapter, recorded_base

    if not words:
        if options.trust_remote_code:
            raise LorascopeError(
                "runs a model's code only where the model is named on the command line, not by an adapter",
                where="--trust-remote-code",
                hint=f"Name it: lorascope check MODEL {shell_word(options.source)} --trust-remote-code",
            )
        words = [options.source]
        options.source = recorded_base(adapters_in(options.source)[0], revision=options.revision)
        remark(f"base model, as {one_line(words[0])} names it: {one_line(options.source)}")
    elif is_adapter(options.source) and not is_adapter(words[0]):
        options.source, words = words[0], [options.source]
        remark(f"read as: lorascope check {shell_word(options.source)} {shell_word(words[0])}")
    return words


def _expanded(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each adapter of a folder that holds several; of a training's checkpoints the last."""
    if len(words) > 1 or not os.path.exists(words[0]):  # noqa: PTH110  takes what no file can be called
        return [words]
    from lorascope.checks.recorded_base import adapters_in

    found = adapters_in(words[0])
    if found != words:
        remark(f"adapters in {one_line(words[0])}: {', '.join(map(one_line, found))}")
    return [(word,) for word in found]
