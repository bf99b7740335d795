"""The command line: the same verbs as in Python. Results go to stdout, notes to stderr.

Exit codes: 0 fine, 1 a finding that matters, 2 bad input.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text, one_line, shown

if TYPE_CHECKING:
    from lorascope.advice.recommend import Recommendation
    from lorascope.costs.budget import Fitted
    from lorascope.costs.training_run import Training
    from lorascope.model.types import ModelMap
    from lorascope.plans.types import Plan

_EXAMPLES = {
    "inspect": """examples:
  lorascope inspect mistral                      the gallery: no download, no torch
  lorascope inspect ./my-model                   a folder: the headers of its weights, else its config.json
  lorascope inspect ./model-Q4_K_M.gguf          a GGUF file
  lorascope inspect Qwen/Qwen3-30B-A3B --by layer
  lorascope inspect ./my-model --trace           what each weight does, by names and by a forward pass without weights
  lorascope inspect --list                    every model type that needs nothing""",
    "plan": """examples:
  lorascope plan mistral                         query and value at rank 8
  lorascope plan mistral qv+ffn                  and the FFN at rank 4
  lorascope plan mixtral attention.q,v=8 'ffn[-8:]=4/16' -o my-plan
  lorascope plan mistral attention --serve vllm  and whether vLLM takes it, with which flags
  lorascope plan mistral --task instruction      what the evidence says for a task; lorascope recommend tells why
  lorascope plan mistral qv+ffn --budget 20M     the highest ranks that a budget pays for: also 0.5%, adapter=50MB
  lorascope plan mistral all --budget memory=24GB --quantization nf4 --batch 4 --seq-len 2048

rules are SELECTOR[LAYERS]=RANK/ALPHA; a later one wins, weight by weight
recipes are qv, qv+ffn, vo, vo+down, attention, ffn, all""",
    "check": """examples:
  lorascope check mistral ./my-adapter           exit code 1 if there is something that matters
  lorascope check mixtral q_proj v_proj gate_proj up_proj down_proj
  lorascope check ./my-model 'model\\.layers\\.\\d+\\.self_attn\\.(q|v)_proj'
  lorascope check ./my-model org/adapter         an adapter on the Hub
  lorascope check qwen2_vl axolotl.yaml          what axolotl would adapt
  lorascope check mistral ./my-adapter --serve sglang
  lorascope check mistral --as trl -- --lora_target_modules q_proj v_proj --lora_r 16""",
    "recommend": """examples:
  lorascope recommend mistral --task classification
  lorascope recommend mixtral --task knowledge --explain      with the records that each choice rests on

tasks are classification, instruction, knowledge, style, reasoning, rl, continued-pretraining""",
    "compare": """examples:
  lorascope compare mistral                      every recipe: parameters, file, memory, coverage
  lorascope compare mixtral qv all 'attention.q,v=8 ffn=4' --quantization nf4 --gradient-checkpointing""",
    "export": """examples:
  lorascope plan mistral qv+ffn -o my-plan
  lorascope export my-plan --to axolotl -o axolotl.yaml
  lorascope export my-plan --to trl --base mistralai/Mistral-7B-v0.3 --data trl-lib/Capybara
  lorascope export my-plan --to peft-python""",
}


# What `--to` takes: the names in trainers.registry, which a parser of arguments need not load.
_TOOLS = ("peft", "peft-python", "axolotl", "llamafactory", "trl", "ms-swift", "unsloth", "mlx-lm", "torchtune")

_SOURCE = "model type, folder, config.json, GGUF file, Hub id, saved map or plan"
_RANK = "rank of recipes, and of rules that name none (default: 8)"
_SERVE = "will a server take it: vllm, sglang, or a release of them, such as vllm==0.20.2"

# The arguments of which a command takes several.
_SEVERAL = {"plan": "rules", "compare": "sides", "check": "adapter"}
# Options whose values may begin with a dash, and how such values begin.
_SIGNED = ("--layers", "--rank", "--alpha", "--scale", "--dropout")
_NEGATIVE = re.compile(r"-(?:[0-9.]|inf|nan)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    if not _streams_open():
        return 2
    parser = _parser()
    options, extra = parser.parse_known_args(_values_joined(sys.argv[1:] if arguments is None else arguments))
    # argparse has done with rules when the first option comes; people write some after it.
    rest = getattr(options, _SEVERAL.get(options.command or "", ""), None)
    if rest is not None and not any(word.startswith("-") for word in extra):
        rest += extra
    elif extra:
        parser.error(f"unrecognized arguments: {one_line(' '.join(extra))}")
    if options.command is None:
        _print(parser.format_help(), end="")
        return 0
    try:
        code = _COMMANDS[options.command](options)
        _print(end="")
        return code
    except LorascopeError as error:
        print(f"lorascope {options.command}: {shown(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        _discard_stdout()
        print(f"lorascope {options.command}: cannot go on: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _streams_open() -> bool:
    """Makes both streams fit for any text; false where results would have nowhere to go (`lorascope … >&-`)."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  it stays open
    if sys.stdout is None:
        print("lorascope: standard output is closed", file=sys.stderr)
        return False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no × shows an escape
            stream.reconfigure(errors="backslashreplace")
    return True


def _values_joined(arguments: Sequence[str]) -> list[str]:
    """`--layers -8:` as `--layers=-8:`: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _SIGNED and _NEGATIVE.match(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _print(text: str = "", *, end: str = "\n") -> None:
    """Prints to stdout. A reader that has gone (`| head`) changes nothing of what the command finds."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        _discard_stdout()


def _discard_stdout() -> None:
    """Keeps Python from failing once more when it flushes what is left at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _number(text: str) -> int | float | str:
    """A number, or the text itself: what is no number is told together with all other faults."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parser() -> argparse.ArgumentParser:
    from lorascope._version import __version__

    parser = argparse.ArgumentParser(
        prog="lorascope",
        description="Aim LoRA on purpose: see, plan and verify what adapters adapt.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lorascope {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")

    inspect = _command(commands, "inspect", "list a model's weights by role, without loading any")
    inspect.add_argument("source", nargs="?", help=_SOURCE)
    inspect.add_argument("--list", action="store_true", help="list the model types that need no source at all")
    inspect.add_argument(
        "--by", choices=("role", "layer", "module"), default="role", help="how to group (default: role)"
    )
    inspect.add_argument("--component", default="", help="only this component: text, vision, audio, connector, …")
    inspect.add_argument("-o", "--output", metavar="FILE", help="save the map, to be used as a source later")
    _force_option(inspect, "replace FILE even if it is not a saved map")
    _source_options(inspect)

    plan = _command(commands, "plan", "choose weights, ranks and alphas, and get the exact configuration")
    plan.add_argument("source", help=_SOURCE)
    plan.add_argument("rules", nargs="*", metavar="RECIPE|RULE", help="what to adapt (default: qv)")
    plan.add_argument("--task", default="", help="what the evidence says for a task, instead of recipes and rules")
    plan.add_argument(
        "--budget", default="", help="the highest ranks that it pays for: 20M, 0.5%%, adapter=50MB, memory=24GB"
    )
    plan.add_argument("--memory", action="store_true", help="tell what training takes, by part")
    plan.add_argument("--rank", type=_number, help=_RANK)
    plan.add_argument("--alpha", type=_number, help="one alpha for every weight (default: 16)")
    plan.add_argument("--scale", type=_number, help="instead: one scale for every weight, alpha follows the rank")
    plan.add_argument(
        "--dropout", type=_number, help="dropout of the adapters (default: 0.05, 0 where PEFT allows none)"
    )
    plan.add_argument("--bias", default="none", help="none, all or lora_only (default: none)")
    plan.add_argument("--rslora", action="store_true", help="scale by alpha / sqrt(rank)")
    plan.add_argument("--dora", action="store_true", help="train a magnitude per output too")
    plan.add_argument("--layers", default="", help="layers of rules that name none: 0:4, -8:, 1,3,5")
    plan.add_argument("--exclude", action="append", default=[], metavar="SELECTOR", help="take these out; repeatable")
    plan.add_argument("--serve", default="", metavar="SERVER", help=_SERVE)
    plan.add_argument("--prove", action="store_true", help="run the installed PEFT on the meta device and compare")
    plan.add_argument("-o", "--output", metavar="DIR", help="write adapter_config.json and plan.json there")
    _force_option(plan, "write into DIR even if it holds a model, a trained adapter or changed files")
    _training_options(plan)
    _source_options(plan)

    recommend = _command(commands, "recommend", "tell what the evidence says for a task, and how strong it is")
    recommend.add_argument("source", help=_SOURCE)
    recommend.add_argument("--task", required=True, help="what the model is to learn")
    recommend.add_argument("--explain", action="store_true", help="print the records that each choice rests on")
    _source_options(recommend)

    compare = _command(commands, "compare", "put recipes and rules side by side: what they adapt and what they cost")
    compare.add_argument("source", help=_SOURCE)
    compare.add_argument(
        "sides", nargs="*", metavar="RECIPE|RULES", help="rules of one side in one word (default: every recipe)"
    )
    compare.add_argument("--rank", type=_number, default=8, help=_RANK)
    compare.add_argument("--explain", action="store_true", help="tell what is known for each recipe, and against it")
    _training_options(compare)
    _source_options(compare)

    check = _command(commands, "check", "tell what an adapter, names or a trainer's configuration really do on a model")
    check.add_argument("source", help=_SOURCE)
    check.add_argument(
        "adapter",
        nargs="+",
        metavar="ADAPTER|NAME|FILE",
        help="an adapter's folder, file or Hub id; a trainer's configuration; names, or one regular expression",
    )
    check.add_argument(
        "--as", default="", dest="trainer", metavar="TRAINER", help="whose configuration it is (default: found out)"
    )
    check.add_argument("--peft", default="", help="whose rules to apply: 0.18 to 0.21 (default: the newest)")
    check.add_argument("--rank", type=_number, default=8, help="rank of names (default: 8)")
    check.add_argument("--alpha", type=_number, default=16, help="alpha of names (default: 16)")
    check.add_argument("--serve", default="", metavar="SERVER", help=_SERVE)
    _source_options(check)

    export = _command(commands, "export", "write a plan as another tool's configuration")
    export.add_argument("plan", help="a saved plan: a folder with a plan.json, or that file")
    export.add_argument("--to", required=True, metavar="TOOL", help=f"one of {', '.join(_TOOLS)}")
    export.add_argument("--base", default="", help="the model to train: Hub id or folder (default: the plan's)")
    export.add_argument(
        "--data", default="", help="what to train on, as the tool names data (default: its demonstration)"
    )
    export.add_argument(
        "--output-dir", default="lora-output", metavar="DIR", help="where the tool writes (default: lora-output)"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="write it there instead of to stdout")
    _force_option(export, "replace FILE even if it is there with another text")
    return parser


def _force_option(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--force", action="store_true", help=meaning)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=_EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=_number, help="sequences in one step (default: 1)")
    parser.add_argument("--seq-len", type=_number, dest="length", help="tokens of a sequence (default: 2048)")
    parser.add_argument("--dtype", help="of the frozen weights: bf16, fp16 or fp32 (default: bf16)")
    parser.add_argument(
        "--quantization", dest="quantization", help="of the frozen weights: none, 8bit or nf4 (default: none)"
    )
    parser.add_argument("--optimizer", help="adamw, adamw-8bit, sgd, adafactor, … (default: adamw)")
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        dest="checkpointing",
        help="keep less, compute twice",
    )


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", default="", help="which head, where a model can have several: causal-lm, …")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--source",
        choices=("auto", "headers", "config"),
        default="auto",
        dest="read",
        help="what of a folder or Hub id to read: headers of its weights (no torch), its config through transformers, "
        "or headers where it has weights (default: auto)",
    )
    parser.add_argument("--strict", action="store_true", help="refuse a model of which only names are known")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="call the model without weights, and tell by the dataflow what each does, beside its name",
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _model(options: argparse.Namespace) -> ModelMap:
    """The map of the source that a command was given; how far a long reading is shows on a terminal's stderr."""
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


def _inspect(options: argparse.Namespace) -> int:
    if options.list:
        return _gallery(options)
    if options.source is None:
        raise LorascopeError("no source is given", hint="Try: lorascope inspect mistral")
    model = _model(options)
    present = sorted({weight.role.component for weight in model.weights})
    if options.component and options.component not in present:
        raise LorascopeError(f"no component {options.component!r} in this model", hint=f"It has {', '.join(present)}.")
    if options.output is not None:
        from lorascope.plans.files import save_map

        # Before anything is printed, so that what fails prints nothing.
        _say(f"wrote {save_map(model, options.output, force=options.force)}")
    if options.json:
        from lorascope.reports.json import map_json

        _print_json(map_json(model))
    else:
        from lorascope.reports.terminal import map_text

        _print(map_text(model, by=options.by, component=options.component))
    if model.unexplained:
        _say(f"{len(model.unexplained)} tensors of the checkpoint are not explained")
    return 1 if model.unexplained else 0


def _gallery(options: argparse.Namespace) -> int:
    from lorascope.sources.builtin import builtin_models

    found = builtin_models()
    if options.json:
        _print_json({name: list(heads) for name, heads in found.items()})
    else:
        from lorascope.reports.tables import table

        _print(
            table(
                ("model type", "heads (the first is meant if none is named)"),
                [(n, ", ".join(h)) for n, h in found.items()],
            )
        )
    return 0


def _plan(options: argparse.Namespace) -> int:
    made, fitted, advised = _made(options)
    training = fitted.training if fitted and fitted.budget.kind == "memory" else _training(options)
    code = 0
    serving = None
    if options.serve:
        from lorascope.servers.check import serve

        serving = serve(made.model, made.config, made.resolution, options.serve)
        code = 1 if serving.answer == "no" else 0
    if options.prove:
        from lorascope.plans.prove import prove, rebuild

        proof = prove(made, rebuild(made.model, options.source, trust_remote_code=options.trust_remote_code))
        for difference in proof.differences:
            _say(f"proof: {difference}")
        verdict = "exactly the plan" if proof.exact else f"{len(proof.differences)} differences"
        _say(f"proof: PEFT {proof.peft} adapts {proof.weights} weights, {proof.trainable:,} trainable: {verdict}")
        code = code if proof.exact else 1
    if options.output is not None:
        from lorascope.plans.files import save_plan

        for path in save_plan(made, options.output, force=options.force):
            _say(f"wrote {path}")
    if options.json:
        from lorascope.reports.json import plan_json, serving_json

        said = {**plan_json(made), "serving": serving_json(serving) if serving else None}
        _print_json({**said, **_costs_json(made, fitted, training), **_advice_json(advised)})
    else:
        from lorascope.reports.terminal import plan_text

        _print(plan_text(made))
        if advised:
            from lorascope.reports.advice import choices_text

            _print(f"\n{choices_text(advised)}")
        if fitted:
            from lorascope.reports.cost import fitted_text

            _print(f"\n{fitted_text(fitted)}")
        if training:
            from lorascope.costs.memory import training_memory
            from lorascope.reports.cost import memory_text

            _print(f"\n{memory_text(training_memory(made, training), training)}")
        if serving is not None:
            from lorascope.reports.check import serving_text

            _print(f"\n{serving_text(serving)}")
    return code


def _made(options: argparse.Namespace) -> tuple[Plan, Fitted | None, Recommendation | None]:
    """The plan of rules, of a task or of a budget, with what the budget pays for and why the task has that plan."""
    faults = []
    if options.task and options.rules:
        faults.append("--task decides the rules, and rules are given: leave one out")
    if options.budget and options.rank is not None:
        faults.append("--budget decides the ranks, and --rank is given: leave one out")
    if faults:
        raise LorascopeError(*faults, hint="lorascope recommend tells which rules a task gets, to go on from there.")
    model = _model(options)
    names = ("alpha", "scale", "dropout", "bias", "rslora", "dora", "layers", "exclude")
    chosen = {name: getattr(options, name) for name in names}
    if options.rank is not None:
        chosen["rank"] = options.rank
    rules = tuple(options.rules)
    advised = None
    if options.task:
        from lorascope.advice.recommend import recommend

        advised = recommend(model, options.task)
        rules = advised.rules
        # What is said beside the task holds.
        chosen.setdefault("rank", advised.rank)
        if options.alpha is None and options.scale is None:
            chosen["alpha"] = advised.alpha
    if options.budget:
        from lorascope.costs.budget import fitted_plan

        chosen.pop("rank", None)
        asked = advised.rank if advised else None
        fitted = fitted_plan(model, *rules, budget=options.budget, training=_training(options), at_most=asked, **chosen)
        return fitted.plan, fitted, advised
    from lorascope.plans.planner import plan

    return plan(model, *rules, **chosen), None, advised


def _training(options: argparse.Namespace) -> Training | None:
    """How a training is run, where its memory is asked for or anything is said of it."""
    names = ("batch", "length", "dtype", "quantization", "optimizer", "checkpointing")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not given and not options.memory:
        return None
    from lorascope.costs.training_run import Training

    return Training(**given)


def _costs_json(made: Plan, fitted: Fitted | None, training: Training | None) -> dict[str, object]:
    if fitted is None and training is None:  # spares what loading the rooms below takes
        return {"budget": None, "training": None, "memory": None}
    from lorascope.costs.memory import training_memory
    from lorascope.reports.cost import fitted_json, memory_json, training_json

    return {
        "budget": fitted_json(fitted) if fitted else None,
        "training": training_json(training) if training else None,
        "memory": memory_json(training_memory(made, training)) if training else None,
    }


def _advice_json(advised: Recommendation | None) -> dict[str, object]:
    if advised is None:
        return {"advice": None}
    from lorascope.reports.advice import choices_json

    return {"advice": choices_json(advised)}


def _recommend(options: argparse.Namespace) -> int:
    from lorascope.advice.recommend import recommend
    from lorascope.reports.advice import advice_json, advice_text

    found = recommend(_model(options), options.task)
    if options.json:
        _print_json(advice_json(found))
    else:
        _print(advice_text(found, explain=options.explain))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from lorascope.costs.compare import compare
    from lorascope.reports.cost import comparison_json, comparison_text

    options.memory = True
    found = compare(_model(options), *options.sides, training=_training(options), rank=options.rank)
    if options.json:
        from lorascope.reports.json import model_json

        _print_json({"model": model_json(found.model), **comparison_json(found)})
    else:
        _print(comparison_text(found))
        if options.explain:
            from lorascope.advice.recommend import evidence_of_recipe
            from lorascope.plans.recipes import RECIPES
            from lorascope.reports.advice import recipe_evidence_text

            named = [side.name for side in found.sides if side.name in RECIPES]
            _print("\n".join(["", *(recipe_evidence_text(evidence_of_recipe(name)) for name in named)]))
    return 1 if any(side.plan is None for side in found.sides) else 0


def _check(options: argparse.Namespace) -> int:
    from lorascope.checks.check import check

    model = _model(options)
    words = options.adapter
    # Several files are checked one by one, as a pre-commit hook gives them; several words are names.
    each = [(word,) for word in words] if len(words) > 1 and all(map(os.path.exists, words)) else [tuple(words)]
    done = [
        check(
            model,
            *given,
            peft=options.peft,
            trainer=options.trainer,
            rank=options.rank,
            alpha=options.alpha,
            serve=options.serve,
        )
        for given in each
    ]
    if options.json:
        from lorascope.reports.json import check_json

        said = [check_json(one) for one in done]
        _print_json(said if len(said) > 1 else said[0])
    else:
        from lorascope.reports.check import check_text

        _print("\n\n".join(check_text(one) for one in done))
    return 1 if any(one.matters for one in done) else 0


def _export(options: argparse.Namespace) -> int:
    from lorascope.plans.files import load_plan, save_text
    from lorascope.trainers.exports import export

    if not options.output_dir.strip():
        raise LorascopeError("--output-dir is empty", hint="Leave it out for lora-output, or name a folder.")
    made = load_plan(options.plan)
    text = export(made, options.to, base=options.base, data=options.data, output=options.output_dir)
    if options.output is not None:
        _say(f"wrote {save_text(text, options.output, force=options.force)}")
    else:
        _print(text, end="")
    return 0


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr)


def _print_json(value: object) -> None:
    _print(json_text(value))


_COMMANDS = {
    "inspect": _inspect,
    "plan": _plan,
    "recommend": _recommend,
    "compare": _compare,
    "check": _check,
    "export": _export,
}
