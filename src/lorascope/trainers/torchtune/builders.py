"""torchtune's functions that build LoRA models, by size.

Sizes, parameters and defaults are compared with torchtune 0.6.1 itself in its tests.
"""

from __future__ import annotations

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


# The sizes of each function's model: layers, tokens, width, of queries, of keys, inside the MLP. Of functions that build the
# same sizes, the first is written; a comment names the others.
_ROWS = """
llama2.lora_llama2_7b              llama     32  32000  4096  4096 4096 11008
llama2.lora_llama2_13b             llama     40  32000  5120  5120 5120 13824
llama2.lora_llama2_70b             llama     80  32000  8192  8192 1024 28672
code_llama2.lora_code_llama2_7b    llama     32  32016  4096  4096 4096 11008
code_llama2.lora_code_llama2_13b   llama     40  32016  5120  5120 5120 13824
code_llama2.lora_code_llama2_70b   llama     80  32016  8192  8192 1024 28672
llama3_1.lora_llama3_1_8b          llama     32 128256  4096  4096 1024 14336
llama3.lora_llama3_8b              llama     32 128256  4096  4096 1024 14336
llama3_3.lora_llama3_3_70b         llama     80 128256  8192  8192 1024 28672
llama3_1.lora_llama3_1_70b         llama     80 128256  8192  8192 1024 28672
llama3.lora_llama3_70b             llama     80 128256  8192  8192 1024 28672
llama3_1.lora_llama3_1_405b        llama    126 128256 16384 16384 1024 53248  no-dora
llama3_2.lora_llama3_2_1b          llama     16 128256  2048  2048  512  8192  tied
llama3_2.lora_llama3_2_3b          llama     28 128256  3072  3072 1024  8192  tied
mistral.lora_mistral_7b            mistral   32  32000  4096  4096 1024 14336
gemma.lora_gemma_2b                gemma     18 256000  2048  2048  256 16384  tied
gemma.lora_gemma_7b                gemma     28 256000  3072  4096 4096 24576  tied
gemma2.lora_gemma2_2b              gemma2    26 256000  2304  2048 1024  9216  tied
gemma2.lora_gemma2_9b              gemma2    42 256000  3584  4096 2048 14336  tied
gemma2.lora_gemma2_27b             gemma2    46 256000  4608  4096 2048 36864  tied
phi3.lora_phi3_mini                phi3      32  32064  3072  3072 3072  8192
phi4.lora_phi4_14b                 phi3      40 100352  5120  5120 1280 17920
qwen2_5.lora_qwen2_5_0_5b          qwen2     24 151936   896   896  128  4864  tied
qwen2.lora_qwen2_0_5b              qwen2     24 151936   896   896  128  4864  tied
qwen2_5.lora_qwen2_5_1_5b_instruct qwen2     28 151936  1536  1536  256  8960  tied
qwen2_5.lora_qwen2_5_1_5b_base     qwen2     28 151936  1536  1536  256  8960  tied
qwen2.lora_qwen2_1_5b              qwen2     28 151936  1536  1536  256  8960  tied
qwen2_5.lora_qwen2_5_3b            qwen2     36 151936  2048  2048  256 11008  tied
qwen2_5.lora_qwen2_5_7b_instruct   qwen2     28 152064  3584  3584  512 18944
qwen2_5.lora_qwen2_5_7b_base       qwen2     28 152064  3584  3584  512 18944
qwen2.lora_qwen2_7b                qwen2     28 152064  3584  3584  512 18944
qwen2_5.lora_qwen2_5_14b_instruct  qwen2     48 152064  5120  5120 1024 13824
qwen2_5.lora_qwen2_5_14b_base      qwen2     48 152064  5120  5120 1024 13824
qwen2_5.lora_qwen2_5_32b_instruct  qwen2     64 152064  5120  5120 1024 27648
qwen2_5.lora_qwen2_5_32b_base      qwen2     64 152064  5120  5120 1024 27648
qwen2_5.lora_qwen2_5_72b_instruct  qwen2     80 152064  8192  8192 1024 29568
qwen2_5.lora_qwen2_5_72b_base      qwen2     80 152064  8192  8192 1024 29568
"""


def _builder(row: str) -> Builder:
    path, model_type, layers, tokens, *widths = row.split()
    sizes = Sizes(int(layers), int(tokens), *map(int, widths[:4]))
    return Builder(path, model_type, sizes, head="tied" not in widths, dora="no-dora" not in widths)


BUILDERS = tuple(map(_builder, _ROWS.strip().splitlines()))
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
    """The names of a weight in torchtune: several if split."""
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
    """Sizes of a decoder as torchtune counts them, or None."""
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
    """The functions that build this model."""
    sizes = sizes_of(model)
    return [builder for builder in BUILDERS if builder.model_type == model.model_type and builder.sizes == sizes]
