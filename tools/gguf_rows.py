"""The architectures that llama.cpp converts and transformers has, and what the converter does to their tensors.

Data for `build_gguf_names`. Converters are read in llama.cpp's source (https://github.com/ggml-org/llama.cpp, folder
`conversion`, as of 2026); what they rename is not here but in the gguf library's `TensorNameMap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Shape = tuple[int, ...]
Config = Any

# The small models' sizes, all different, by the names that configurations have for them.
TINY: Mapping[str, Any] = {
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 6,
    "num_local_experts": 6,
    "n_routed_experts": 6,
    "moe_num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "shared_intermediate_size": 40,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 10,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclasses.dataclass(frozen=True)
class Edit:
    """What llama.cpp's converter does to some tensors before it names them.

    Attributes:
        pattern: Which: a regular expression for the whole original name.
        operation: How the original's shape comes back from the file's: see `gguf_names`.
        sources: What the file calls it: names, `{b}` for the layer, in the order in which the operation takes them.
        shapes: The shapes in the file, from the original's shape and the configuration.
    """

    pattern: str
    operation: str
    sources: tuple[str, ...]
    shapes: Callable[[Shape, Config], tuple[Shape, ...]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture of transformers that llama.cpp converts.

    Attributes:
        architecture: llama.cpp's name.
        model_type: transformers' name.
        tiny: Arguments of the small models beside `TINY`; `...` leaves an argument of `TINY` out.
        edits: What the converter changes.
        renames: Regular expressions and replacements that bring an original name into `TensorNameMap`'s vocabulary.
        absent: Regular expressions of what the original has and the converter leaves out, with the reason.
        holds: Tensors that a file of this row has, where the architecture has several rows; the first row that fits counts.
        where: Metadata that it has, within the architecture's own unless it starts with `tokenizer`; None for any value.
        others: Further rules, for files of older converters or other options: original, operation, source.
        keys: Metadata keys that this row reads otherwise than `KEYS` says.
        also: Other model types whose files look the same.
        head: The class, where it is not the causal language model.
        note: What must be said about it.
    """

    architecture: str
    model_type: str
    tiny: tuple[Mapping[str, Any], ...] = ({},)
    edits: tuple[Edit, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    absent: tuple[tuple[str, str], ...] = ()
    holds: tuple[str, ...] = ()
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: tuple[tuple[str, str, str], ...] = ()
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    also: tuple[str, ...] = ()
    head: str = ""
    note: str = ""


# Shapes in the file, from the original's.


def _same(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return (shape,)


def _swapped(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return ((*shape[:-2], shape[-1], shape[-2]),)


def _squeezed(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return ((shape[0], *shape[2:]),)


def _column(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return ((shape[0], 1),)


def _groups(shape: Shape, config: Config) -> tuple[Shape, ...]:
    groups = getattr(config, "n_groups", None) or config.mamba_n_groups
    return ((groups, shape[0] // groups),)


def _halves(shape: Shape, config: Config) -> tuple[Shape, ...]:
    half = (*shape[:-2], shape[-2] // 2, shape[-1])
    return half, half


def _swapped_halves(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return _halves(_swapped(shape, config)[0], config)


def _last_halves(shape: Shape, config: Config) -> tuple[Shape, ...]:
    half = (*shape[:-1], shape[-1] // 2)
    return half, half


def _qkvz(shape: Shape, config: Config) -> tuple[Shape, ...]:
    gate = config.linear_num_value_heads * config.linear_value_head_dim
    return (shape[0] - gate, shape[1]), (gate, shape[1])


def _key_and_value(shape: Shape, config: Config) -> tuple[Shape, ...]:
    heads, low = config.num_attention_heads, shape[1]
    return (heads, low, config.qk_nope_head_dim), (heads, config.v_head_dim, low)


def _expert_rows(shape: Shape, config: Config) -> tuple[Shape, ...]:
    experts = config.ffn_config.moe_num_experts
    return ((experts, shape[0] // experts, shape[1]),)


def _swapped_expert_rows(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return _swapped(_expert_rows(shape, config)[0], config)


def _four_axes(shape: Shape, config: Config) -> tuple[Shape, ...]:
    return ((1, shape[0], 1, shape[2]),)


# Edits that several rows share.

CONV = Edit(r".*\.conv1d\.weight", "unsqueeze", ("blk.{b}.ssm_conv1d.weight",), _squeezed)
SHORT_CONV = Edit(r".*\.conv\.conv\.weight", "unsqueeze", ("blk.{b}.shortconv.conv.weight",), _squeezed)
SHARED_GATE = Edit(r".*\.mlp\.shared_expert_gate\.weight", "row", ("blk.{b}.ffn_gate_inp_shexp.weight",), _same)
LATENT = Edit(
    r".*\.kv_b_proj\.weight", "key and value", ("blk.{b}.attn_k_b.weight", "blk.{b}.attn_v_b.weight"), _key_and_value
)
CORRECTION = Edit(r".*(e_score_correction_bias|expert_bias)", "same", ("blk.{b}.exp_probs_b.bias",), _same)
DELTA = (CONV, Edit(r".*\.dt_bias", "same", ("blk.{b}.ssm_dt.bias",), _same))
MAMBA2 = (
    *DELTA,
    Edit(r".*\.A_log", "flatten", ("blk.{b}.ssm_a",), _column),
    Edit(r".*\.(mixer|mamba)\.D", "flatten", ("blk.{b}.ssm_d",), _column),
    Edit(r".*\.(mixer|mamba)\.norm\.weight", "flatten", ("blk.{b}.ssm_norm.weight",), _groups),
)
# Until April 2025 the latent's matrix was not split.
UNSPLIT = (("model.layers.{b}.self_attn.kv_b_proj.weight", "same", "blk.{b}.attn_kv_b.weight"),)
GATE_UP = ("blk.{b}.ffn_gate.weight", "blk.{b}.ffn_up.weight")
GATE_UP_EXPERTS = ("blk.{b}.ffn_gate_exps.weight", "blk.{b}.ffn_up_exps.weight")
GATE_UP_SHARED = ("blk.{b}.ffn_gate_shexp.weight", "blk.{b}.ffn_up_shexp.weight")
DOWN_EXPERTS = ("blk.{b}.ffn_down_exps.weight",)
GRANITE_EXPERTS = (
    Edit(r".*\.block_sparse_moe\.input_linear\.weight", "join", GATE_UP_EXPERTS, _halves),
    Edit(r".*\.block_sparse_moe\.output_linear\.weight", "same", DOWN_EXPERTS, _same),
)
GRANITE_SHARED = Edit(r".*\.shared_mlp\.input_linear\.weight", "join", GATE_UP_SHARED, _halves)
GRANITE_DENSE = (
    Edit(r".*\.shared_mlp\.input_linear\.weight", "join", GATE_UP, _halves),
    Edit(r".*\.shared_mlp\.output_linear\.weight", "same", ("blk.{b}.ffn_down.weight",), _same),
)

# llama.cpp's option to keep the two matrices of each expert together (`--fuse-gate-up-exps`).
FUSED = (
    ("model.layers.{b}.mlp.experts.{e}.gate_proj.weight", "half member", "blk.{b}.ffn_gate_up_exps.weight"),
    ("model.layers.{b}.mlp.experts.{e}.up_proj.weight", "half member", "blk.{b}.ffn_gate_up_exps.weight"),
)

# Sizes that several rows share.

BIASED = {"attention_bias": True, "mlp_bias": True}
DELTA_SIZES = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 10,
}
MAMBA2_SIZES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 5, "mamba_d_ssm": 64}
GRANITE_LAYERS = {**MAMBA2_SIZES, "layer_types": ["mamba", "attention", "mamba"]}
SHORT_CONV_LAYERS = {"layer_types": ["conv", "full_attention", "conv"]}
NEMOTRON_SIZES = {
    "num_hidden_layers": ...,
    "ssm_state_size": 5,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "moe_shared_expert_intermediate_size": 40,
}
GEMMA4_SIZES = {
    "head_dim": 8,
    "global_head_dim": 12,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 6,
    "vocab_size_per_layer_input": 72,
}

FALCON_40B = {"new_decoder_architecture": True, "num_kv_heads": 2}

MULTIMODAL = "Released checkpoints are multimodal: they hold these weights under a prefix, beside the towers."
TRIMMED = "The converter cuts or adds padding rows of the embedding: the original may have more or fewer."
SHARED_EMBEDDING = ((r"(encoder|decoder)\.embed_tokens\.weight", "it is shared.weight again"),)
UNWRITTEN = "llama.cpp keeps it in the metadata"

ROWS: tuple[Row, ...] = (
    # The converters of llama.py. Until April 2024 files had a tensor for each expert.
    Row(
        "llama",
        "mixtral",
        holds=("blk.{b}.ffn_gate_inp.weight",),
        others=(
            ("model.layers.{b}.block_sparse_moe.experts.{e}.w1.weight", "same", "blk.{b}.ffn_gate.{e}.weight"),
            ("model.layers.{b}.block_sparse_moe.experts.{e}.w2.weight", "same", "blk.{b}.ffn_down.{e}.weight"),
            ("model.layers.{b}.block_sparse_moe.experts.{e}.w3.weight", "same", "blk.{b}.ffn_up.{e}.weight"),
        ),
    ),
    Row("llama", "llama", tiny=({}, BIASED), also=("mistral", "internlm3", "iquestcoder")),
    Row(
        "llama4",
        "llama4_text",
        tiny=({"interleave_moe_layer_step": 2, "intermediate_size_mlp": 56},),
        edits=(
            Edit(r".*\.experts\.gate_up_proj", "join transposed", GATE_UP_EXPERTS, _swapped_halves),
            Edit(r".*\.experts\.down_proj", "transpose", DOWN_EXPERTS, _swapped),
        ),
        note=MULTIMODAL,
    ),
    Row("arcee", "arcee", tiny=({}, BIASED)),
    Row("smollm3", "smollm3", tiny=({}, BIASED)),
    Row("apertus", "apertus", absent=((r".*\.act_fn\.\w+", UNWRITTEN),)),
    Row("mistral3", "ministral3", also=("mistral",), note=MULTIMODAL),
    Row(
        "mistral4",
        "mistral4",
        head="Mistral4ForCausalLM",
        edits=(LATENT,),
        others=UNSPLIT,
        renames=((r"(\.experts\.\w+)$", r"\1.weight"),),
        note=MULTIMODAL,
    ),
    Row("afmoe", "afmoe", edits=(CORRECTION,)),
    # qwen.py
    Row("qwen2", "qwen2"),
    Row("qwen2moe", "qwen2_moe", edits=(SHARED_GATE,)),
    Row("qwen3", "qwen3", tiny=({}, BIASED)),
    Row("qwen3moe", "qwen3_moe", tiny=({}, BIASED)),
    Row(
        "qwen3next",
        "qwen3_next",
        tiny=(DELTA_SIZES,),
        edits=(
            *DELTA,
            SHARED_GATE,
            Edit(r".*\.in_proj_qkvz\.weight", "join", ("blk.{b}.attn_qkv.weight", "blk.{b}.attn_gate.weight"), _qkvz),
        ),
        others=(
            *FUSED,
            # As the first converter of December 2025 wrote it.
            ("model.layers.{b}.linear_attn.in_proj_qkvz.weight", "same", "blk.{b}.ssm_in.weight"),
        ),
    ),
    Row("qwen35", "qwen3_5_text", tiny=(DELTA_SIZES,), edits=DELTA, note=MULTIMODAL),
    Row(
        "qwen35moe",
        "qwen3_5_moe_text",
        tiny=(DELTA_SIZES,),
        edits=(*DELTA, SHARED_GATE),
        others=FUSED,
        note=MULTIMODAL,
    ),
    Row(
        "dots1",
        "dots1",
        tiny=({"n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 2},),
        edits=(CORRECTION,),
    ),
    # gemma.py
    Row("gemma", "gemma"),
    Row("gemma2", "gemma2"),
    Row("gemma3", "gemma3_text", note=f"{MULTIMODAL} {TRIMMED}"),
    Row("gemma-embedding", "gemma3_text", head="Gemma3TextModel"),
    Row(
        "gemma3n",
        "gemma3n_text",
        tiny=(
            {
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
                "intermediate_size": [48] * 4,
                "laurel_rank": 5,
                "hidden_size_per_layer_input": 6,
                "vocab_size_per_layer_input": 72,
            },
        ),
        renames=((r"_scale$", "_scale.weight"),),
        note=f"{MULTIMODAL} {TRIMMED}",
    ),
    Row(
        "gemma4",
        "gemma4_text",
        tiny=(
            GEMMA4_SIZES,
            {
                **GEMMA4_SIZES,
                "enable_moe_block": True,
                "num_experts": 6,
                "top_k_experts": 2,
                "moe_intermediate_size": 24,
            },
            {
                **GEMMA4_SIZES,
                "hidden_size_per_layer_input": 0,
                "attention_k_eq_v": True,
                "num_global_key_value_heads": 1,
            },
        ),
        edits=(
            Edit(r".*\.router\.scale", "same", ("blk.{b}.ffn_gate_inp.scale",), _same),
            Edit(r".*\.per_expert_scale", "same", ("blk.{b}.ffn_down_exps.scale",), _same),
        ),
        renames=((r"(layer_scalar|\.experts\.\w+)$", r"\1.weight"),),
        keys={"attention.key_length": "global_head_dim", "attention.key_length_swa": "head_dim"},
        note=MULTIMODAL,
    ),
    # granite.py
    Row(
        "granite",
        "granitemoehybrid",
        where={"ssm.conv_kernel": None},
        tiny=({**GRANITE_LAYERS, "layer_types": ["attention"] * 3, "num_local_experts": 0},),
        edits=GRANITE_DENSE,
    ),
    Row("granite", "granite", tiny=({}, BIASED)),
    Row(
        "granitemoe",
        "granitemoehybrid",
        where={"ssm.conv_kernel": None},
        tiny=({**GRANITE_LAYERS, "layer_types": ["attention"] * 3},),
        edits=(*GRANITE_EXPERTS, GRANITE_SHARED),
    ),
    Row(
        "granitemoe",
        "granitemoeshared",
        holds=("blk.{b}.ffn_gate_shexp.weight",),
        edits=(*GRANITE_EXPERTS, GRANITE_SHARED),
    ),
    Row("granitemoe", "granitemoe", edits=GRANITE_EXPERTS),
    Row(
        "granitehybrid",
        "granitemoehybrid",
        holds=("blk.{b}.ffn_gate_exps.weight",),
        tiny=(GRANITE_LAYERS,),
        edits=(*GRANITE_EXPERTS, GRANITE_SHARED, *MAMBA2),
    ),
    Row(
        "granitehybrid",
        "granitemoehybrid",
        where={"embedding_scale": None},
        tiny=({**GRANITE_LAYERS, "num_local_experts": 0},),
        edits=(*GRANITE_DENSE, *MAMBA2),
    ),
    Row("granitehybrid", "bamba", tiny=({**MAMBA2_SIZES, "attn_layer_indices": [1]},), edits=MAMBA2),
    # phi.py
    Row("phi2", "phi"),
    Row("phi3", "phi3"),
    Row("phimoe", "phimoe", tiny=({}, {"attention_bias": True, "lm_head_bias": True})),
    # deepseek.py, glm.py, chatglm.py
    Row(
        "deepseek2",
        "deepseek_v3",
        holds=("blk.{b}.exp_probs_b.bias",),
        tiny=({}, {"q_lora_rank": None}),
        edits=(LATENT, CORRECTION),
        others=UNSPLIT,
        also=("glm4_moe_lite",),
    ),
    Row(
        "deepseek2",
        "deepseek_v2",
        holds=("blk.{b}.ffn_gate_inp.weight",),
        tiny=({}, {"q_lora_rank": None}),
        edits=(LATENT,),
        others=UNSPLIT,
    ),
    Row("deepseek2", "youtu", tiny=({}, {"q_lora_rank": None}), edits=(LATENT,)),
    Row("chatglm", "glm", holds=("blk.{b}.attn_q.weight",)),
    Row("glm4", "glm4"),
    Row(
        "glm4moe",
        "glm4_moe",
        tiny=({}, {"use_qk_norm": True, "attention_bias": True}),
        edits=(CORRECTION,),
        also=("solar_open",),
    ),
    Row(
        "glm-dsa",
        "glm_moe_dsa",
        tiny=({"index_n_heads": 3, "index_head_dim": 10},),
        edits=(LATENT, CORRECTION),
        others=UNSPLIT,
    ),
    # State spaces, and their hybrids.
    Row("mamba", "falcon_mamba", where={"ssm.dt_b_c_rms": True}, edits=(CONV,)),
    Row("mamba", "mamba", edits=(CONV,)),
    Row(
        "mamba2",
        "mamba2",
        tiny=({"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 5},),
        edits=MAMBA2,
    ),
    Row("jamba", "jamba", tiny=({"attn_layer_offset": 0, "attn_layer_period": 2},), edits=(CONV,)),
    Row(
        "falcon-h1",
        "falcon_h1",
        tiny=(MAMBA2_SIZES, {**MAMBA2_SIZES, "mamba_rms_norm": True, **BIASED}),
        edits=MAMBA2,
        others=(("model.layers.{b}.pre_ff_layernorm.weight", "same", "blk.{b}.ffn_norm.weight"),),
    ),
    Row(
        "nemotron_h",
        "nemotron_h",
        tiny=({**NEMOTRON_SIZES, "layers_block_type": ["linear_attention", "full_attention", "mlp"]},),
        edits=MAMBA2,
        keys={"block_count": "num_hidden_layers"},
    ),
    Row(
        "nemotron_h_moe",
        "nemotron_h",
        tiny=(
            {**NEMOTRON_SIZES, "layers_block_type": ["linear_attention", "moe", "full_attention"]},
            {
                **NEMOTRON_SIZES,
                "layers_block_type": ["linear_attention", "moe", "full_attention"],
                "moe_latent_size": 14,
            },
        ),
        edits=(*MAMBA2, CORRECTION),
        keys={"block_count": "num_hidden_layers"},
        renames=((r"^backbone\.layers\.(\d+)\.mixer\.experts\.", r"model.layers.\1.mlp.experts."),),
    ),
    Row("lfm2", "lfm2", tiny=(SHORT_CONV_LAYERS, {**SHORT_CONV_LAYERS, "conv_bias": True}), edits=(SHORT_CONV,)),
    Row(
        "lfm2moe",
        "lfm2_moe",
        tiny=({**SHORT_CONV_LAYERS, "num_dense_layers": 1},),
        edits=(SHORT_CONV, CORRECTION),
        renames=((r"^model\.(.*\.experts\.)", r"\1"),),
    ),
    Row(
        "kimi-linear",
        "kimi_linear",
        tiny=(
            {
                "layer_types": ["linear_attention", "full_attention", "linear_attention"],
                "mlp_layer_types": ["dense", "sparse", "sparse"],
                "linear_head_dim": 6,
                "linear_num_heads": 4,
            },
        ),
        edits=(
            LATENT,
            CORRECTION,
            *(
                Edit(rf".*\.{x}_conv1d\.weight", "four axes", (f"blk.{{b}}.ssm_conv1d_{x}.weight",), _four_axes)
                for x in "qkv"
            ),
            DELTA[1],
        ),
        renames=((r"block_sparse_moe\.(gate_proj|up_proj|down_proj)", r"mlp.\1"),),
        others=UNSPLIT,
    ),
    # Each with a converter of its own.
    Row(
        "falcon",
        "falcon",
        holds=("blk.{b}.attn_norm_2.weight",),
        tiny=(FALCON_40B, {**FALCON_40B, "bias": True}),
    ),
    Row("falcon", "falcon", tiny=({}, {**FALCON_40B, "num_ln_in_parallel_attn": 1})),
    Row(
        "gpt2",
        "gpt2",
        edits=(
            Edit(r".*\.c_attn\.weight", "transpose", ("blk.{b}.attn_qkv.weight",), _swapped),
            Edit(r".*\.attn\.c_proj\.weight", "transpose", ("blk.{b}.attn_output.weight",), _swapped),
            Edit(r".*\.c_fc\.weight", "transpose", ("blk.{b}.ffn_up.weight",), _swapped),
            Edit(r".*\.mlp\.c_proj\.weight", "transpose", ("blk.{b}.ffn_down.weight",), _swapped),
        ),
    ),
    Row("gptneox", "gpt_neox"),
    Row("mpt", "mpt"),
    Row("starcoder", "gpt_bigcode"),
    Row("starcoder2", "starcoder2"),
    Row("bloom", "bloom", renames=((r"^transformer\.", ""),)),
    Row(
        "stablelm",
        "stablelm",
        tiny=({}, {"use_qkv_bias": True, "qk_layernorm": True}),
        renames=((r"_layernorm\.norms\.", "_layernorm."),),
    ),
    Row("minicpm3", "minicpm3"),
    Row("command-r", "cohere", tiny=({}, {"use_qk_norm": True})),
    Row("cohere2", "cohere2"),
    Row(
        "dbrx",
        "dbrx",
        tiny=(
            {
                "num_key_value_heads": ...,
                "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 6, "moe_top_k": 2},
                "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
            },
        ),
        edits=(
            Edit(r".*\.experts\.mlp\.w1", "rows", ("blk.{b}.ffn_gate_exps.weight",), _expert_rows),
            Edit(r".*\.experts\.mlp\.v1", "rows", ("blk.{b}.ffn_up_exps.weight",), _expert_rows),
            Edit(r".*\.experts\.mlp\.w2", "rows transposed", DOWN_EXPERTS, _swapped_expert_rows),
        ),
    ),
    Row("olmo", "olmo"),
    Row("olmo2", "olmo3", where={"attention.sliding_window": None}),
    Row("olmo2", "olmo2"),
    Row("olmoe", "olmoe"),
    Row("nemotron", "nemotron", tiny=({}, BIASED)),
    Row("exaone4", "exaone4"),
    Row("exaone-moe", "exaone_moe", edits=(CORRECTION,)),
    Row("ernie4_5", "ernie4_5", tiny=({}, {"use_bias": True})),
    Row("ernie4_5-moe", "ernie4_5_moe", edits=(dataclasses.replace(CORRECTION, operation="row"),)),
    Row("hunyuan-moe", "hunyuan_v1_moe"),
    Row("hunyuan-dense", "hunyuan_v1_dense"),
    Row(
        "gpt-oss",
        "gpt_oss",
        edits=(
            Edit(r".*\.experts\.gate_up_proj", "join transposed", GATE_UP_EXPERTS, _swapped_halves),
            Edit(
                r".*\.experts\.gate_up_proj_bias",
                "join last",
                ("blk.{b}.ffn_gate_exps.bias", "blk.{b}.ffn_up_exps.bias"),
                _last_halves,
            ),
            Edit(r".*\.experts\.down_proj", "transpose", DOWN_EXPERTS, _swapped),
            Edit(r".*\.experts\.down_proj_bias", "same", ("blk.{b}.ffn_down_exps.bias",), _same),
        ),
        renames=((r"\.sinks$", ".sinks.weight"),),
        note="The released checkpoint holds the experts packed in MXFP4; here they are as transformers unpacks them.",
    ),
    Row("seed_oss", "seed_oss", tiny=({}, {"attention_out_bias": True})),
    Row("minimax-m2", "minimax_m2", edits=(CORRECTION,)),
    Row("jais2", "jais2"),
    Row(
        "mimo2",
        "mimo_v2_flash",
        edits=(CORRECTION,),
        renames=((r"attention_sink_bias$", "attention_sink_bias.weight"),),
    ),
    # Encoders and encoder-decoders.
    Row(
        "t5",
        "umt5",
        head="UMT5ForConditionalGeneration",
        holds=("enc.blk.1.attn_rel_b.weight",),
        absent=SHARED_EMBEDDING,
    ),
    *(
        Row(architecture, "t5", head=head, tiny=tiny, holds=holds, absent=SHARED_EMBEDDING, also=also)
        for architecture, head in (("t5", "T5ForConditionalGeneration"), ("t5encoder", "T5EncoderModel"))
        for tiny, holds, also in (
            (({"feed_forward_proj": "gated-gelu"},), ("enc.blk.{b}.ffn_gate.weight",), ("mt5",)),
            (({},), (), ()),
        )
    ),
    Row(
        "bert",
        "bert",
        head="BertModel",
        holds=("token_types.weight",),
        where={"tokenizer.ggml.model": "bert"},
        absent=((r"pooler\..*", "llama.cpp takes embeddings before the pooler"),),
    ),
    Row("bert", "distilbert", head="DistilBertModel", where={"tokenizer.ggml.model": "bert"}),
    Row("modern-bert", "modernbert", head="ModernBertModel"),
    Row("nomic-bert", "nomic_bert", head="NomicBertModel"),
    Row("eurobert", "eurobert", head="EuroBertModel"),
)
