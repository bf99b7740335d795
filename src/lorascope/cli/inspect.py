"""`lorascope inspect`."""

from __future__ import annotations

import argparse

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import SOURCE, add_force, add_source, model_of
from lorascope.cli.output import print_json, print_text, remark
from lorascope.errors import LorascopeError

EXAMPLES = """examples:
  lorascope inspect mistral                      a built-in model: no download, no torch
  lorascope inspect ./my-model                   a folder: the headers of its weights, else its config.json
  lorascope inspect ./model-Q4_K_M.gguf          a GGUF file
  lorascope inspect Qwen/Qwen3-30B-A3B --by layer
  lorascope inspect ./my-model --trace           roles by dataflow too: runs the model without weights
  lorascope inspect --list                       the built-in models"""
SEVERAL = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", nargs="?", help=SOURCE)
    parser.add_argument("--list", action="store_true", help="list the built-in models")
    parser.add_argument(
        "--by", choices=("role", "layer", "module"), default="role", help="how to group (default: role)"
    )
    parser.add_argument("--component", default="", help="only this component: text, vision, audio, connector, …")
    parser.add_argument("-o", "--output", metavar="FILE", help="save the map, to use it as a source later")
    add_force(parser, "replace FILE even if it is not a saved map")
    add_source(parser)


def run(options: argparse.Namespace) -> int:
    """Print or save the map of a model."""
    if options.list:
        return _list_builtin_models(options)
    if options.source is None:
        raise LorascopeError("no source is given", hint="Try: lorascope inspect mistral")
    model = model_of(options)
    present = sorted({weight.role.component for weight in model.weights})
    if options.component and options.component not in present:
        raise LorascopeError(f"no component {options.component!r} in this model", hint=f"It has {', '.join(present)}.")
    code = report_gaps(model, shown=not options.json)
    if options.output is not None:
        from lorascope.plans.files import save_map

        # First, so that a refusal prints nothing else.
        remark(f"wrote {save_map(model, options.output, force=options.force)}")
    if options.json:
        from lorascope.reports.json import map_json

        print_json(map_json(model))
    else:
        from lorascope.reports.model import map_text

        print_text(map_text(model, by=options.by, component=options.component))
    return code


def _list_builtin_models(options: argparse.Namespace) -> int:
    from lorascope.sources.builtin import builtin_models

    models = builtin_models()
    if options.json:
        print_json({name: list(heads) for name, heads in models.items()})
    else:
        from lorascope.reports.tables import table

        print_text(
            table(
                ("model type", "heads (the first is the default)"),
                [(name, ", ".join(heads)) for name, heads in models.items()],
            )
        )
    return 0
