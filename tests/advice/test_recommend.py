"""Recommendations: a plan that PEFT confirms, reasons with evidence, alternatives with the cost of real plans."""

from __future__ import annotations

import collections
import math
import re
import shlex
from collections.abc import Callable, Iterable, Sequence

import pytest
from build_advice import DATA, read_tasks

from lorascope.advice.alternatives import PlanCache
from lorascope.advice.evidence import STRENGTHS, load_evidence, strength
from lorascope.advice.recommend import evidence_of_recipe, first_rate, recommend
from lorascope.advice.tasks import load_advice, task_of
from lorascope.advice.types import Choice, Recommendation
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.peft_rules.addresses import peft_name
from lorascope.plan_api import plan
from lorascope.plans.prove import prove, rebuild
from lorascope.plans.recipes import RECIPES
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.samples import fails, sample
from tests.helpers.shallow_models import shallow_map

PAIRS = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]
TASKS = ("classification", "instruction", "knowledge", "style", "reasoning", "rl", "continued-pretraining")
# The one choice that rests on nothing, and says so.
UNTESTED = {"dropout"}


def by_name(recommendation: Recommendation) -> dict[str, Choice]:
    return {choice.name: choice for choice in recommendation.choices}


def prices(choice: Choice) -> dict[tuple[str, int], int | None]:
    return {
        (" ".join([*one.rules, *(f"-{two}" for two in one.exclude)]), one.rank): one.trainable
        for one in choice.alternatives
    }


def check(model: ModelMap, task: str, known: PlanCache) -> str:
    """What holds for every recommendation; which of the two outcomes it was."""
    try:
        found = recommend(model, task, cache=known)
    except LorascopeError as error:
        assert error.hint and error.where == model.model
        assert task_of(task).refused.get(model.head) or model.refusal
        return "unwrappable" if model.refusal else "refused"
    made = found.plan
    assert made.resolution.refusal is None
    wanted = {peft_name(model, target.weight): (target.rank, target.alpha) for target in made.targets}
    assert wanted == {one.name: (one.rank, one.alpha) for one in made.resolution.adapted}
    assert {alpha for _, alpha in wanted.values()} == {32.0}
    assert found.unknown and found.notes
    names = [choice.name for choice in found.choices]
    assert names[:2] == ["targets", "rank"] and names[-1] == "dropout" and len(set(names)) == len(names)
    assert ("experts" in names) == any(target.weight.role.variant == "expert" for target in made.targets)
    for choice in found.choices:
        assert choice.value and choice.reason and choice.grounds
        assert bool(choice.supporting) == (choice.name not in UNTESTED), choice.name
        weakest = max((ground.strength for ground in choice.grounds), key=STRENGTHS.index)
        assert choice.strength == weakest != "contradicted"
        assert (choice.strength == "untested") == (choice.name in UNTESTED)
        for other in choice.alternatives:
            assert (other.trainable is None) == (other.ratio is None) == bool(other.refusal)
            if other.trainable is not None and other.ratio is not None:
                assert other.ratio == other.trainable / made.resolution.trainable > 0
    return "planned"


def walk(
    pairs: Sequence[tuple[str, str]], tasks: Iterable[str], load: Callable[[str, str], ModelMap] = load_builtin
) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for model_type, head in pairs:
        model = load(model_type, head)
        known = PlanCache(model)
        for task in tasks:
            counts[check(model, task, known)] += 1
    return counts


def shallow(model_type: str, head: str) -> ModelMap:
    """A built-in map with every kind of its layers, and few of a kind."""
    return shallow_map(load_builtin(model_type, head))


def planned_costs(
    pairs: Sequence[tuple[str, str]], tasks: Sequence[str], load: Callable[[str, str], ModelMap] = load_builtin
) -> int:
    """Asserts that the cost of each alternative is that of its own plan; the number of alternatives."""
    compared = 0
    for place, (model_type, head) in enumerate(pairs):
        model = load(model_type, head)
        try:
            found = recommend(model, tasks[place % len(tasks)])
        except LorascopeError:
            continue
        for other in (other for choice in found.choices for other in choice.alternatives if not other.refusal):
            alone = plan(model, *other.rules, rank=other.rank, exclude=other.exclude)
            assert other.trainable == alone.resolution.trainable, (model_type, head, other.rules, other.rank)
            compared += 1
    return compared


def test_costs_are_those_of_real_plans() -> None:
    assert planned_costs(PAIRS[::40], TASKS) == 105


@pytest.mark.slow
def test_costs_are_those_of_real_plans_on_every_model() -> None:
    assert planned_costs(PAIRS, TASKS[::-1], shallow) == 3450


def test_a_sample_of_the_built_in_models() -> None:
    assert walk(PAIRS[::99], TASKS) == {"planned": 30, "refused": 12}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "counts"),
    [
        (0, {"planned": 630, "refused": 252, "unwrappable": 7}),
        (1, {"planned": 643, "refused": 246}),
        (2, {"planned": 619, "refused": 270}),
        (3, {"planned": 612, "refused": 270}),
    ],
)
def test_every_task_on_every_built_in_model(part: int, counts: dict[str, int]) -> None:
    assert len(PAIRS) == 507
    assert walk(PAIRS[part::4], TASKS, shallow) == counts


# Known models.


def test_llama() -> None:
    found = recommend(sample("llama"), "instruction")
    assert found.command == "lorascope plan llama all --rank 16 --alpha 32"
    per_rank = 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert found.plan.resolution.trainable == 16 * per_rank == 39_976_960
    choices = by_name(found)
    assert "experts" not in choices
    assert prices(choices["targets"]) == {
        ("qv", 8): 4_194_304,
        ("qv+ffn", 8): 9_994_240,
        ("vo", 8): 4_194_304,
        ("vo+down", 8): 32 * 8 * (2 * 8192 + 15104),
        ("attention", 16): 16_777_216,
        ("ffn", 16): 23_199_744,
        ("all", 4): 9_994_240,
    }
    control = choices["targets"].alternatives[-1]
    assert control.note == "control for qv+ffn (ranks 8 and 4): same number of parameters"
    assert control.ratio == 0.25
    assert prices(choices["rank"]) == {("all", 8): 8 * per_rank, ("all", 64): 64 * per_rank}
    assert choices["first_rate"].value == "2.9e-04"
    assert choices["dropout"].value == "0.05"
    assert (choices["targets"].strength, choices["rank"].strength) == ("moderate", "moderate")
    assert choices["first_rate"].strength == "contested"
    assert not found.warnings
    assert any("40.0M parameters" in note and "80.0M training tokens" in note for note in found.notes)


def test_mixtral() -> None:
    found = recommend(sample("mixtral"), "rl")
    assert found.command == "lorascope plan mixtral all --rank 8 --alpha 32"
    assert [str(rule) for rule in found.plan.rules] == ["attention,ffn,mixer=8", "ffn.expert=4"]
    attention = 32 * 8 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    # gate and up are one matrix.
    expert = 8 * ((4096 + 2 * 14336) + (14336 + 4096))
    assert found.plan.resolution.trainable == attention + 32 * 4 * expert == 59_244_544
    choices = by_name(found)
    assert choices["experts"].value.startswith("rank 4 per routed expert: 8 // 2 active experts")
    assert prices(choices["experts"]) == {
        ("all ffn.expert=1", 8): attention + 32 * expert,
        ("all ffn.expert=8", 8): attention + 32 * 8 * expert,
        ("all -ffn.expert", 8): attention,
    }
    assert choices["experts"].alternatives[0].note == "as PEFT documents: rank 8 // 8 experts"
    assert choices["experts"].alternatives[0].grounds[0].strength == "contradicted"
    assert "first_rate" not in choices
    assert choices["dropout"].value == "0"
    assert choices["dropout"].note == "PEFT cannot apply it to target_parameters"
    (warning,) = found.warnings
    assert warning.startswith(
        "Routed experts are 88.5 % of the trainable parameters (52,428,800 of 59,244,544). Cheaper, in all: "
    )
    assert (
        "19,922,944 (as PEFT documents: rank 8 // 8 experts), 6,815,744 (routed experts not adapted). In MoE-Sieve"
        in warning
    )
    assert prices(choices["rank"]).keys() == {("all", 1), ("all", 32)}


def test_deepseek_v3() -> None:
    found = recommend(sample("deepseek_v3"), "continued-pretraining")
    assert (found.rank, found.plan.resolution.trainable) == (256, 11_752_390_656)
    choices = by_name(found)
    assert choices["experts"].value.startswith("rank 32 per routed expert: 256 // 8 active experts")
    assert prices(choices["experts"])["all ffn.expert=1", 256] == 2_325_692_416
    assert (
        choices["targets"].alternatives[-1].note
        == "control for qv+ffn (ranks 8 and 4): 12,758,272 parameters fewer (3.66 %)"
    )
    assert found.warnings[0].startswith(
        "Routed experts are 82.8 % of the trainable parameters (9,730,785,280 of 11,752,390,656)"
    )
    assert any("Full fine-tuning learns more" in note for note in found.notes)
    small = by_name(recommend(sample("deepseek_v3"), "rl"))["experts"]
    assert small.value.startswith("rank 1 per routed expert: 8 // 8 active experts")
    assert small.alternatives[0].note == "as PEFT documents: rank 8 // 256 experts, at least 1"


def test_bert() -> None:
    model = sample("bert", "sequence-classification")
    found = recommend(model, "classification")
    assert found.command == "lorascope plan bert all --rank 8 --alpha 32 --head sequence-classification"
    adapters = 12 * 8 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert found.plan.resolution.trainable == adapters + 768 * 2 + 2 == 1_328_642
    assert "trained in full" in found.notes[0]
    assert any("this adapter (1.3M parameters)" in note for note in found.notes)
    assert "first_rate" not in by_name(found)
    with fails(
        "bert: BertForMaskedLM (masked-lm) cannot do classification: it has no classification head",
        "--head sequence-classification",
    ):
        recommend(sample("bert"), "classification")
    with fails(
        "BertForSequenceClassification", "instruction", "This head can do: classification (--task classification)"
    ):
        recommend(model, "instruction")
    # An encoder is no decoder, though transformers has a class for that.
    with fails("cannot do rl: ", "This head can do: continued-pretraining"):
        recommend(sample("bert"), "rl")
    with fails("--head masked-lm"):
        recommend(model, "continued-pretraining")


def test_t5() -> None:
    found = recommend(sample("t5"), "style")
    attention = 3 * 6 * 4 * (512 + 512)
    assert found.plan.resolution.trainable == 16 * (attention + 2 * 6 * 2 * (512 + 2048)) == 2_162_688
    assert "encoder-decoders: all evidence comes from BART and mBART in 2021" in found.unknown
    assert any("style" in one and "folklore" in one for one in found.unknown)
    assert [ground.claim.id for ground in by_name(found)["targets"].alternatives[1].grounds] == [
        "qv8-ffn4-balance",
        "ffn-beats-attention",
        "style-needs-ffn",
    ]
    # Rank 256 would be half of its hidden size.
    assert recommend(sample("t5"), "continued-pretraining").rank == 64


def test_mamba2() -> None:
    found = recommend(sample("mamba2"), "knowledge")
    assert {target.weight.role.block for target in found.plan.targets} == {"mixer"}
    assert found.plan.resolution.trainable == 23_199_744
    targets = by_name(found)["targets"]
    assert "has only mixers to adapt" in targets.reason
    assert prices(targets) == {
        ("qv", 8): None,
        ("qv+ffn", 8): None,
        ("vo", 8): None,
        ("vo+down", 8): None,
        ("attention", 16): None,
        ("ffn", 16): None,
        ("all", 4): 5_799_936,
    }
    assert all("selects nothing in mamba2" in one.refusal for one in targets.alternatives[:-1])
    assert targets.alternatives[-1].note == ""
    assert any("mixers" in one for one in found.unknown)
    (warning,) = found.warnings
    assert warning.startswith("Not adapted: 64 weights, such as backbone.layers.0.mixer.out_proj: PEFT refuses")


@pytest.mark.parametrize(
    ("model", "value"),
    [
        ("llama4_text", "rank 8 per routed expert: one is active"),
        ("deepseek_v2", "rank 8 per routed expert: how many are active is unknown, so nothing is divided"),
    ],
)
def test_a_rank_that_is_not_divided(model: str, value: str) -> None:
    found = recommend(sample(model), "rl")
    assert by_name(found)["experts"].value.startswith(value)
    assert {target.rank for target in found.plan.targets} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["vo", "vo+down", "all"])
@pytest.mark.parametrize("model", ["llama", "mixtral", "gpt2", "t5", "bert", "mamba2"])
def test_peft_itself_adapts_what_is_recommended_and_priced(model: str, recipe: str) -> None:
    if (model, recipe) in (("mamba2", "vo"), ("mamba2", "vo+down")):
        with fails("selects nothing in mamba2"):
            plan(sample(model), recipe)
        return
    made = plan(sample(model), recipe)
    proof = prove(made, rebuild(made.model, model))
    assert proof.exact, proof.differences
    assert (proof.weights, proof.trainable) == (len(made.targets), made.resolution.trainable)


def test_a_decoder_can_classify_in_two_ways() -> None:
    found = recommend(sample("llama"), "classification")
    assert "compute the loss on the label's tokens only" in found.notes[0]
    assert found.plan.config.task_type == "CAUSAL_LM"
    with_head = recommend(sample("llama", "sequence-classification"), "classification")
    assert with_head.plan.config.task_type == "SEQ_CLS"
    with fails("--head causal-lm"):
        recommend(sample("llama", "sequence-classification"), "reasoning")


# The rest.


@pytest.mark.parametrize("task", TASKS)
def test_the_command_makes_the_plan(task: str) -> None:
    found = recommend(sample("qwen3"), task)
    words = shlex.split(found.command)
    assert words[:3] == ["lorascope", "plan", "qwen3"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    again = plan(sample("qwen3"), words[3], rank=int(options["--rank"]), alpha=float(options["--alpha"]))
    assert again.config == found.plan.config


def test_the_first_rate() -> None:
    assert first_rate(sample("llama")) == pytest.approx(5e-4 * math.exp(0.781 * math.log(2000 / 4096)))
    assert first_rate(sample("qwen3")) == pytest.approx(5e-4 * (2000 / 4096) ** 0.0775)
    assert first_rate(sample("llama", "sequence-classification")) is None
    assert first_rate(sample("mistral")) is None
    assert first_rate(sample("t5")) is None


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("clasification", 'Did you mean "classification"'),
        ("", "The tasks are classification"),
        ("dpo", "The tasks are"),
        (None, "The tasks are"),
        ([], "The tasks are"),
    ],
)
def test_no_such_task(task: str, said: str) -> None:
    with fails(f"unknown task {task!r}", said):
        recommend(sample("llama"), task)


def test_a_cache_is_of_one_model() -> None:
    with fails("the cache has plans of mistral, not of llama"):
        recommend(sample("llama"), "rl", cache=PlanCache(sample("mistral")))


def test_a_model_that_peft_cannot_wrap() -> None:
    with fails("PEFT cannot wrap PPFormulaNet", "No task changes that"):
        recommend(sample("pp_formulanet"), "instruction")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_evidence_on_both_sides(name: str) -> None:
    said = evidence_of_recipe(name)
    assert said.purpose == RECIPES[name].purpose
    assert said.pro and said.contra
    for ground in (*said.pro, *said.contra):
        assert ground.strength == strength(ground.claim.id)
        assert ground.supporting or ground.contradicting or ground.strength == "untested"


def test_the_balance_rests_on_nothing_that_was_measured() -> None:
    said = evidence_of_recipe("qv+ffn")
    assert (said.pro[0].claim.id, said.pro[0].strength) == ("qv8-ffn4-balance", "untested")
    with fails("unknown recipe 'attn'", 'Did you mean "attention"'):
        evidence_of_recipe("attn")


# The data.


def test_the_tasks_are_these() -> None:
    advice = load_advice()
    assert tuple(advice.tasks) == TASKS
    assert advice.recipes.keys() == RECIPES.keys()
    assert {task.recipe for task in advice.tasks.values()} == {"all"}
    assert all(1 <= rank <= 32 for rank in (advice.tasks["rl"].rank, *advice.tasks["rl"].ranks))


def test_every_claim_is_used_or_of_another_room() -> None:
    advice = load_advice()
    used = {claim for task in advice.tasks.values() for why in task.why.values() for claim in why.claims}
    used |= {claim for recipe in advice.recipes.values() for claim in (*recipe.pro, *recipe.contra)}
    used |= {claim for why in (advice.note, advice.capacity, advice.hot) for claim in why.claims}
    assert load_evidence().claims.keys() - used == {
        "allocation-beats-uniform",
        "alpha-follows-rank",
        "expert-rank-by-all",
        "full-wins-continued-pretraining",
        "mix-known-facts",
        "question-answer-format",
        "ranks-to-ffn",
        "router-frozen",
        "style-unlike-facts",
        "top-layers-first",
        "tuned-rate-levels-methods",
    }


def test_numbers_of_reasons_are_those_of_records() -> None:
    """No reason has a number that no record has."""
    found = re.compile(r"\d*\.?\d+")
    known: set[float] = set()
    for record in load_evidence().records:
        texts = [record.spread, *record.limits, *(bearing.size for bearing in record.bears)]
        texts += [*(figure.what for figure in record.figures), *record.models, record.data]
        known |= {float(number) for text in texts for number in found.findall(text)}
        known |= {float(value) for figure in record.figures for value in figure.values}
    advice = load_advice()
    whys = [why for task in advice.tasks.values() for why in task.why.values()]
    whys += [advice.note, advice.capacity, advice.hot]
    numbers = [float(number) for why in whys for number in found.findall(why.reason.replace("Llama-3", ""))]
    assert len(numbers) > 40
    assert {number for number in numbers if number not in known} == set()


def test_faults_of_the_data_are_told_at_once() -> None:
    text = (DATA / "tasks.toml").read_text(encoding="utf-8")
    claims = {name: claim.text for name, claim in load_evidence().claims.items()}
    bad = (
        text.replace('claims = ["rank-1-enough-rl"]', 'claims = ["rank-1-enough"]')
        .replace("ranks = [1, 32]", "ranks = [0]")
        .replace("[recipe.vo]", "[recipe.ov]")
        .replace('style-needs-ffn = ["style"]', 'style-needs-ffn = ["stile"]')
        .replace('sequence-classification = "its head outputs labels, and pretraining predicts words"', "")
    )
    with fails(
        "6 faults",
        "task rl: why.rank: unknown claim 'rank-1-enough'. Did you mean \"rank-1-enough-rl\"",
        "task rl: 0 is not a whole number from 1",
        "recipe vo is not in both tasks.toml and recipes.py",
        "recipe ov is not in both tasks.toml and recipes.py",
        "only style-needs-ffn: unknown task 'stile'",
        "task continued-pretraining: head sequence-classification is neither able nor refused",
    ):
        read_tasks(bad, claims)
    with fails("there is no table task"):
        read_tasks("", claims)
    with fails("not TOML"):
        read_tasks("[", claims)
