"""Every verb on one map, in this process: what any map must stand without a traceback."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from lorascope.advice.alternatives import PlanCache
from lorascope.advice.recommend import evidence_of_recipe, recommend
from lorascope.advice.tasks import load_advice
from lorascope.checks.check import check
from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.compare import compare
from lorascope.costs.memory import training_memory
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.model.json import map_from_json, map_to_json
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.plans.files import plan_from_json, plan_to_json
from lorascope.plans.map_gaps import IncompleteMapWarning
from lorascope.plans.types import Plan
from lorascope.reports.advice import advice_json, advice_text
from lorascope.reports.check import check_text, serving_text
from lorascope.reports.cost import budget_json, budget_text, comparison_json, comparison_text, memory_json, memory_text
from lorascope.reports.json import check_json, map_json, plan_json, serving_json
from lorascope.reports.model import map_text
from lorascope.reports.plan import plan_text
from lorascope.servers.check import serve
from lorascope.trainers.exports import export

TOOLS = ("peft", "peft-python", "axolotl", "llamafactory", "trl", "ms-swift", "unsloth", "mlx-lm", "torchtune")
BUDGETS = ("20M", "0.5%", "adapter=50MB", "memory=24GB", "1", "100%", "memory=1B", "999999999999999B")
TRAININGS = (
    Training(),
    Training(batch=4, seq_len=512, quantization="nf4", gradient_checkpointing=True),
    Training(batch=1_000_000, seq_len=100_000_000, dtype="fp32", quantization="8bit", device="cpu", optimizer="sgd"),
    Training(optimizer="adafactor"),
    Training(optimizer="adamw-8bit", gradient_checkpointing=True, dtype="fp16"),
)
PLANS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("qv",), {}),
    (("all",), {"dora": True}),
    (("qv+ffn",), {"rslora": True, "rank": 16}),
    (("attention.q,v=8/4", "ffn[-1:]=4", "embedding=2", "head=2"), {"dropout": 0}),
    (("all", "router=4", "other=2", "mixer=4"), {"scale": 2.0, "bias": "all", "dropout": 0}),
    (("attention", "ffn.expert=1", "ffn.shared=3"), {"exclude": ["attention.k"], "layers": "0,1"}),
    (("attention.o,qkv=1000000", "ffn.down=1"), {"bias": "lora_only"}),
)
CHECKS: tuple[tuple[Any, ...], ...] = (
    ("q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "query", "dense", "c_attn"),
    ("all-linear",),
    (r".*\.(q|k|v|o)_proj",),
    ({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens", "lm_head", "wte"]},),
    ({"peft_type": "LORA", "r": 8, "target_modules": "all-linear", "use_dora": True, "bias": "all"},),
    (
        {
            "peft_type": "LORA",
            "r": 8,
            "target_modules": ["q_proj"],
            "target_parameters": ["q_proj.weight", "experts.gate_up_proj", "experts.down_proj"],
            "modules_to_save": ["lm_head", "embed_tokens"],
        },
    ),
    (
        {
            "peft_type": "LORA",
            "r": 8,
            "target_modules": ["v_proj"],
            "lora_bias": True,
            "layers_to_transform": [0],
            "rank_pattern": {"v_proj": 64},
            "init_lora_weights": "pissa",
            "use_rslora": True,
        },
    ),
)


def attempts(model: ModelMap, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """(verb, what runs it) of everything that is done with a map; `seed` picks among what has many forms."""

    def pick(choices: Any, count: int) -> list[Any]:
        return [choices[(seed + step) % len(choices)] for step in range(min(count, len(choices)))]

    for by in ("role", "layer", "module"):
        yield f"inspect --by {by}", lambda by=by: map_text(model, by=by)
    yield "inspect --json", lambda: strict_json(map_json(model))
    yield "inspect -o", lambda: saved_map(model)
    for rules, options in pick(PLANS, 3):
        yield "plan", lambda rules=rules, options=options: planned(model, rules, options, seed)
    for budget in pick(BUDGETS, 2):
        yield "plan --budget", lambda budget=budget: budgeted(model, budget, seed)
    yield "compare", lambda: compared(model, seed)
    cache = PlanCache(model)
    for task in pick(tuple(load_advice().tasks), 2):
        yield "recommend", lambda task=task: recommended(model, task, cache)
    for words in pick(CHECKS, 3):
        yield "check", lambda words=words: checked(model, words, ("", "vllm", "sglang")[seed % 3])


def strict_json(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def saved_map(model: ModelMap) -> None:
    again = map_from_json(json.loads(strict_json(map_to_json(model))))
    assert again == model


def planned(model: ModelMap, rules: tuple[str, ...], options: dict[str, Any], seed: int) -> None:
    made = plan(model, *rules, **options)
    plan_text(made)
    strict_json(plan_json(made))
    again = plan_from_json(json.loads(strict_json(plan_to_json(made))))
    assert (again.targets, again.config) == (made.targets, made.config)
    for training in (TRAININGS[seed % len(TRAININGS)], TRAININGS[(seed + 1) % len(TRAININGS)]):
        remembered(made, training)
        assert adapter_file_size(made, training.dtype) > 0
    for server in ("vllm", "sglang"):
        serving = serve(model, made.config, made.resolution, server)
        serving_text(serving)
        strict_json(serving_json(serving))
    for tool in (TOOLS[seed % len(TOOLS)], TOOLS[(seed + 3) % len(TOOLS)]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", IncompleteMapWarning)
                export(made, tool)
        except LorascopeError as error:
            assert error.faults


def remembered(made: Plan, training: Training) -> None:
    memory = training_memory(made, training)
    assert memory.total >= 0
    memory_text(memory, training)
    strict_json(memory_json(memory))


def budgeted(model: ModelMap, budget: str, seed: int) -> None:
    rules = PLANS[seed % 3][0]
    found = plan(model, *rules, budget=budget, training=TRAININGS[seed % len(TRAININGS)])
    budget_text(found)
    strict_json(budget_json(found))


def compared(model: ModelMap, seed: int) -> None:
    found = compare(model, training=TRAININGS[seed % len(TRAININGS)])
    comparison_text(found)
    strict_json(comparison_json(found))


def recommended(model: ModelMap, task: str, cache: PlanCache) -> None:
    found = recommend(model, task, cache=cache)
    advice_text(found, explain=True)
    strict_json(advice_json(found))
    evidence_of_recipe(found.rules[0])


def checked(model: ModelMap, words: tuple[Any, ...], server: str) -> None:
    found = check(model, *words, serve=server)
    check_text(found)
    strict_json(check_json(found))


def every_verb(model: ModelMap, seed: int, answers: Counter[str], share: int = 1) -> None:
    """Runs one in `share` of them; counts what was given and what was refused.

    Raises:
        Exception: Whatever is no `LorascopeError`.
    """
    for place, (verb, attempt) in enumerate(attempts(model, seed)):
        if (place + seed) % share:
            continue
        try:
            attempt()
        except LorascopeError as error:
            assert error.faults
            assert all(line.isprintable() for line in str(error).split("\n")), ascii(str(error))
            answers[f"{verb}: refused"] += 1
        else:
            answers[f"{verb}: done"] += 1


def count_of(answers: Counter[str], end: str) -> int:
    """How often it ended so, whatever the verb."""
    return sum(count for name, count in answers.items() if name.endswith(end))
