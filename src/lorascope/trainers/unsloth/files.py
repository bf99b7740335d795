"""Scripts that call Unsloth's get_peft_model, written and read."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.names import listed
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.types import Plan
from lorascope.trainers.capabilities import adapts_exactly, expressible_config
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.protocol import (
    PLACEHOLDER,
    Job,
    TrainerConfig,
    Unsupported,
    require_no_faults,
    trainer_filter,
)
from lorascope.trainers.provenance import NO_DROPOUT, YOUR_MODEL, file_heading
from lorascope.trainers.python_lines import Name, PythonLines
from lorascope.trainers.python_text import (
    call_arguments,
    call_owner,
    call_text,
    calls_function,
    method_arguments,
    read_script,
)
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.unsloth.schema import (
    CALL,
    CAPABILITIES,
    CLASSES,
    FAST,
    HANDED_ON,
    OWN_TYPES,
    PEFT,
    READ,
    RELEASE,
    SCHEMA,
    SCOPE,
    SLOW,
    TITLE,
    has_own_code,
    loading_faults,
    unfiltered_class,
    unsloth_faults,
)
from lorascope.trainers.unsloth.search import counts_experts
from lorascope.trainers.unsloth.targets import call_outcome, is_embedding, why_uncovered

_HINT = "Names and types are those of Unsloth's get_peft_model, and of peft.LoraConfig."
# How a script makes a conversation of a row with an image and a text.
_CONVERSATION = '''

def conversation(row):
    """A row with an image and a text, as a conversation."""
    asked = [{"type": "text", "text": "Write down what the image shows."}, {"type": "image", "image": row["image"]}]
    answer = [{"type": "text", "text": row["text"]}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}

'''


# Writing.


def unsupported_by_unsloth(plan: Plan) -> Iterator[Unsupported]:
    """What Unsloth does not train, or makes PEFT do otherwise."""
    if reason := why_uncovered(plan.model):
        yield Unsupported("model", f"{reason}.")
        return
    parts = []
    ends = {plan.model.input_embeddings, plan.model.output_embeddings} - {""}
    trained = [t.weight.name for t in plan.targets if is_embedding(t.weight.name) or t.weight.name in ends]
    if trained:
        message = (
            f"{TITLE} makes no adapters of embeddings and heads ({listed(trained, MOST_NAMED)}): it trains them in full, with "
            "modules_to_save."
        )
        parts.append(Unsupported("weights", message))
    parts += CAPABILITIES.unsupported(plan)
    if not parts and _written_config(plan) is None:
        message = f"{TITLE} cannot adapt exactly these weights: it makes PEFT adapt others of the same names too."
        parts.append(Unsupported("names", message))
    yield from parts


def _written_config(plan: Plan) -> AdapterConfig | None:
    """The configuration with which Unsloth does the plan, or None."""
    # Unsloth keeps PEFT from rewriting the names of experts.
    kept = dataclasses.replace(plan, model=dataclasses.replace(plan.model, moe_conversion=""))
    owner = unfiltered_class(plan.model)
    for config in (plan.config, expressible_config(plan, CAPABILITIES), expressible_config(kept, CAPABILITIES)):
        if config is None:
            continue
        parameters = config.target_parameters or (() if counts_experts(plan.model) else None)
        config = dataclasses.replace(config, target_parameters=parameters)
        settings = {**SCHEMA.defaults, **SCHEMA.settings_of(config), **HANDED_ON.settings_of(config)}
        if not has_own_code(owner, plan.model):
            settings |= {**SCOPE, "task_type": config.task_type}
        outcome = call_outcome(plan.model, {**settings, "owner": owner, "given": (), "slow": False})
        if adapts_exactly(plan, outcome.resolution):
            return config
    return None


def write_unsloth(plan: Plan, job: Job) -> str:
    """The script of a plan."""
    owner = unfiltered_class(plan.model)
    script = PythonLines()
    for line in file_heading(plan, f"{TITLE} {RELEASE}, PEFT {PEFT}."):
        script.comment(line)
    script.blank()
    script.code("from unsloth import $owner  # before all others, which it changes\n", owner=Name(owner))
    script.code("from datasets import load_dataset\nfrom trl import SFTConfig, SFTTrainer\n")
    if not job.base:
        script.comment(YOUR_MODEL)
    script.code("model, tokenizer = $owner.from_pretrained(", owner=Name(owner))
    script.code("    $base,\n    max_seq_length=2048,\n    load_in_4bit=False,\n)", base=job.base or PLACEHOLDER)
    _write_adapters(script, plan, owner)
    _write_training(script, owner, job)
    return script.text()


def _write_adapters(script: PythonLines, plan: Plan, owner: str) -> None:
    """The call that makes the adapters."""
    model = plan.model
    config = _written_config(plan) or plan.config
    arguments = peft_arguments(config)
    if has_own_code(owner, model) or arguments.get("task_type") == "CAUSAL_LM":
        arguments.pop("task_type", None)
    elif "task_type" not in arguments:
        arguments["task_type"] = None
    if counts_experts(model) and "target_parameters" not in arguments:
        arguments["target_parameters"] = []
    remarks = {
        "target_modules": "A string is one regular expression for full names; Unsloth does not filter it."
        if isinstance(config.target_modules, str)
        else "",
        "target_parameters": "Given, so that Unsloth adds no experts of its own." if counts_experts(model) else "",
        "lora_dropout": NO_DROPOUT if config.target_parameters else "",
    }
    script.code("model = $owner.get_peft_model(\n    model,", owner=Name(owner))
    for key, value in arguments.items():
        if remarks.get(key):
            script.comment(remarks[key], indent=4)
        script.code("    $key=$value,", key=Name(key), value=value)
    if not has_own_code(owner, model):
        script.comment("All parts, so that Unsloth filters none of the names.", indent=4)
        for key, on in SCOPE.items():
            script.code("    $key=$on,", key=Name(key), on=on)
    script.code('    use_gradient_checkpointing="unsloth",\n    random_state=0,\n)')
    script.code("model.print_trainable_parameters()\n")


def _write_training(script: PythonLines, owner: str, job: Job) -> None:
    """The lines that train: on texts, or on images with texts."""
    images = owner == "FastVisionModel"
    if images:
        script.code("from unsloth.trainer import UnslothVisionDataCollator\n")
    if not job.data:
        columns = "image and text" if images else "messages"
        script.comment(f"Your data: a Hub id, a folder or a file, with the columns {columns}.")
    data = job.data or ("unsloth/LaTeX_OCR" if images else "trl-lib/Capybara")
    if job.data_format == "json":
        script.code('rows = load_dataset("json", data_files=$data, split="train")', data=data)
    else:
        script.code('rows = load_dataset($data, split="train")', data=data)
    if images:
        script.code(_CONVERSATION)
    script.code("trainer = SFTTrainer(\n    model=model,\n    processing_class=tokenizer,")
    if images:
        script.code("    train_dataset=[conversation(row) for row in rows],")
        script.code("    data_collator=UnslothVisionDataCollator(model, tokenizer),\n    args=SFTConfig(")
        script.code(
            '        output_dir=$output, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True},',
            output=job.output,
        )
    else:
        script.code(
            '    train_dataset=rows.map(lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)}),'
        )
        script.code('    args=SFTConfig(\n        output_dir=$output, dataset_text_field="text",', output=job.output)
    script.code(
        "        per_device_train_batch_size=2, gradient_accumulation_steps=4, num_train_epochs=1, learning_rate=2e-4,"
    )
    script.code("    ),\n)\ntrainer.train()\nmodel.save_pretrained($output)", output=job.output)


# Reading.


def read_unsloth(text: str, where: str) -> TrainerConfig:
    """The call of `get_peft_model` in a script.

    Raises:
        LorascopeError: There is none, or Unsloth or PEFT stops at its values.
    """
    script = read_script(text, where, CALL)
    owner, count = call_owner(script, CALL)
    given = call_arguments(script, (CALL,), known_keys("unsloth") - READ)
    loading = method_arguments(script, CLASSES, "from_pretrained")
    faults = [*unsloth_faults(given)]
    if count > 1:
        faults.append(f"{CALL} has {count} arguments without a name, of which only the model is read")
    if owner not in CLASSES:
        faults.append(f"{CALL} is called on {owner or 'nothing'}, not on {', '.join(CLASSES)}")
    require_no_faults([*faults, *loading_faults(loading)], where, _HINT)
    consequence = (
        f"{FAST} stops at it on {', '.join(OWN_TYPES)}, and everything else ignores it silently"
        if owner == FAST
        else f"{owner} ignores it silently"
    )
    findings = [*unknown_key_findings("unsloth", given, where, consequence=consequence)]
    if calls_function(script, "add_new_tokens"):
        message = "add_new_tokens makes Unsloth train embed_tokens and lm_head in full, which is not counted here"
        findings.append(trainer_filter("warning", where, message, "List them in modules_to_save."))
    base = call_text(script, "from_pretrained", "model_name")
    slow = any(loading.get(key) for key in SLOW)
    settings = {**SCHEMA.defaults, **given, "owner": owner, "given": tuple(given), "slow": slow}
    return TrainerConfig(base, settings, tuple(findings))
