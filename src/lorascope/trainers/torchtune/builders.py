"""torchtune's own functions that build a model with LoRA, by the sizes that each one builds.

Sizes, parameters and defaults are compared with torchtune 0.6.1 itself in its tests.
"""

from __future__ import annotations

from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Weight

# What torchtune calls a layer of its attention: the part of it here.
ATTENTION_PARTS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "output_proj": "o"}

# Its MLP: gate, down, up.
MLP = ("w1", "w2", "w3")


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a decoder: widths are features."""

    layers: int
    vocabulary: int
    hidden: int
    queries: int
    keys: int
    inner: int

    def __str__(self) -> str:
        return (
            f"{self.layers} layers of width {self.hidden}, {self.queries} for queries and {self.keys} for keys, "
            f"{self.inner} inside the MLP, and {self.vocabulary:,} tokens"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Builder:
    """One function of `torchtune.models`.

    Attributes:
        path: Below `torchtune.models`.
        model_type: What transformers calls such models.
        sizes: What it builds.
        head: It can adapt the output layer: not where that is the embedding.
        dora: It takes `use_dora`.
    """

    path: str
    model_type: str
    sizes: Sizes
    head: bool = True
    dora: bool = True

    @property
    def family(self) -> str:
        """Its module: `llama3_1`."""
        return self.path.partition(".")[0]


def _rows() -> Iterator[Builder]:
    llama_7b, llama_13b, llama_70b = (4096, 4096, 4096, 11008), (5120, 5120, 5120, 13824), (8192, 8192, 1024, 28672)
    llama_8b = (4096, 4096, 1024, 14336)
    # Of functions that build the same sizes, the first is written; a comment names the others.
    for path, layers, tokens, widths in (
        ("llama2.lora_llama2_7b", 32, 32000, llama_7b),
        ("llama2.lora_llama2_13b", 40, 32000, llama_13b),
        ("llama2.lora_llama2_70b", 80, 32000, llama_70b),
        ("code_llama2.lora_code_llama2_7b", 32, 32016, llama_7b),
        ("code_llama2.lora_code_llama2_13b", 40, 32016, llama_13b),
        ("code_llama2.lora_code_llama2_70b", 80, 32016, llama_70b),
        ("llama3_1.lora_llama3_1_8b", 32, 128256, llama_8b),
        ("llama3.lora_llama3_8b", 32, 128256, llama_8b),
        ("llama3_3.lora_llama3_3_70b", 80, 128256, llama_70b),
        ("llama3_1.lora_llama3_1_70b", 80, 128256, llama_70b),
        ("llama3.lora_llama3_70b", 80, 128256, llama_70b),
    ):
        yield Builder(path, "llama", Sizes(layers, tokens, *widths))
    yield Builder("llama3_1.lora_llama3_1_405b", "llama", Sizes(126, 128256, 16384, 16384, 1024, 53248), dora=False)
    yield Builder("llama3_2.lora_llama3_2_1b", "llama", Sizes(16, 128256, 2048, 2048, 512, 8192), head=False)
    yield Builder("llama3_2.lora_llama3_2_3b", "llama", Sizes(28, 128256, 3072, 3072, 1024, 8192), head=False)
    yield Builder("mistral.lora_mistral_7b", "mistral", Sizes(32, 32000, *llama_8b))
    yield Builder("gemma.lora_gemma_2b", "gemma", Sizes(18, 256000, 2048, 2048, 256, 16384), head=False)
    yield Builder("gemma.lora_gemma_7b", "gemma", Sizes(28, 256000, 3072, 4096, 4096, 24576), head=False)
    yield Builder("gemma2.lora_gemma2_2b", "gemma2", Sizes(26, 256000, 2304, 2048, 1024, 9216), head=False)
    yield Builder("gemma2.lora_gemma2_9b", "gemma2", Sizes(42, 256000, 3584, 4096, 2048, 14336), head=False)
    yield Builder("gemma2.lora_gemma2_27b", "gemma2", Sizes(46, 256000, 4608, 4096, 2048, 36864), head=False)
    yield Builder("phi3.lora_phi3_mini", "phi3", Sizes(32, 32064, 3072, 3072, 3072, 8192))
    yield Builder("phi4.lora_phi4_14b", "phi3", Sizes(40, 100352, 5120, 5120, 1280, 17920))
    for names, sizes, head in (
        (("qwen2_5.lora_qwen2_5_0_5b", "qwen2.lora_qwen2_0_5b"), Sizes(24, 151936, 896, 896, 128, 4864), False),
        (
            ("qwen2_5.lora_qwen2_5_1_5b_instruct", "qwen2_5.lora_qwen2_5_1_5b_base", "qwen2.lora_qwen2_1_5b"),
            Sizes(28, 151936, 1536, 1536, 256, 8960),
            False,
        ),
        (("qwen2_5.lora_qwen2_5_3b",), Sizes(36, 151936, 2048, 2048, 256, 11008), False),
        (
            ("qwen2_5.lora_qwen2_5_7b_instruct", "qwen2_5.lora_qwen2_5_7b_base", "qwen2.lora_qwen2_7b"),
            Sizes(28, 152064, 3584, 3584, 512, 18944),
            True,
        ),
        (
            ("qwen2_5.lora_qwen2_5_14b_instruct", "qwen2_5.lora_qwen2_5_14b_base"),
            Sizes(48, 152064, 5120, 5120, 1024, 13824),
            True,
        ),
        (
            ("qwen2_5.lora_qwen2_5_32b_instruct", "qwen2_5.lora_qwen2_5_32b_base"),
            Sizes(64, 152064, 5120, 5120, 1024, 27648),
            True,
        ),
        (
            ("qwen2_5.lora_qwen2_5_72b_instruct", "qwen2_5.lora_qwen2_5_72b_base"),
            Sizes(80, 152064, 8192, 8192, 1024, 29568),
            True,
        ),
    ):
        for path in names:
            yield Builder(path, "qwen2", sizes, head)


BUILDERS: tuple[Builder, ...] = tuple(_rows())
# Functions that take all sizes as arguments.
PLAIN = {
    "llama2.lora_llama2": "llama",
    "llama3.lora_llama3": "llama",
    "llama3_1.lora_llama3_1": "llama",
    "llama3_2.lora_llama3_2": "llama",
    "mistral.lora_mistral": "mistral",
    "gemma.lora_gemma": "gemma",
    "gemma2.lora_gemma2": "gemma2",
    "phi3.lora_phi3": "phi3",
    "qwen2.lora_qwen2": "qwen2",
}


def torchtune_part(weight: Weight) -> tuple[str, ...]:
    """What torchtune has in a weight's place: several names where it splits it, none where it has no LoRA for it."""
    role = weight.role
    if role.component != "text" or weight.kind != "linear":
        return ()
    if role.block == "attention" and role.variant in ("", "self") and weight.layer is not None:
        if role.part == "qkv":
            return ("q_proj", "k_proj", "v_proj")
        return tuple(name for name, part in ATTENTION_PARTS.items() if part == role.part)
    if role.block == "ffn" and role.variant in ("", "dense") and weight.layer is not None:
        return {"gate": ("w1",), "down": ("w2",), "up": ("w3",), "gate_up": ("w1", "w3")}.get(role.part, ())
    return ("output",) if role.block == "head" else ()


def sizes_of(model: ModelMap) -> Sizes | None:
    """The sizes of a decoder as torchtune counts them; None for what is no such decoder."""
    parts: dict[str, tuple[int, int]] = {}
    layers = set()
    for weight in model.weights:
        names = torchtune_part(weight)
        if weight.layer is not None and names:
            layers.add(weight.layer)
            shape = (weight.shape[0], weight.shape[1])
            if parts.setdefault("+".join(names), shape) != shape:
                return None
    down, output = parts.get("w2"), parts.get("output_proj")
    tokens = next((w.shape for w in model.weights if w.kind == "embedding" and w.role.block == "embedding"), None)
    if down is None or output is None or tokens is None:
        return None
    queries = output[1]
    joined = parts.get("q_proj+k_proj+v_proj")
    keys = parts.get("k_proj", (0, 0))[0] if joined is None else (joined[0] - queries) // 2
    if keys <= 0:
        return None
    vocabulary = next((size for size in tokens if size != down[0]), down[0])
    return Sizes(len(layers), vocabulary, down[0], queries, keys, down[1])


def builders_for(model: ModelMap) -> list[Builder]:
    """The functions that build a model of this type and size, the one to write first."""
    sizes = sizes_of(model)
    return [builder for builder in BUILDERS if builder.model_type == model.model_type and builder.sizes == sizes]
