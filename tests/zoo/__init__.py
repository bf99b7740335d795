"""Models that no name helps with: written from scratch in the styles that people use, each with its weights' true roles.

Nothing that decides roles may look at them, by name or by shape. Batch 2 was written when the rules stood for batch 1,
batch 3 when they had been mended on batch 2, and batch 4 when nothing was mended any more. Each of these three says
what it got at first.
"""

from tests.zoo import (
    batch_1_attention,
    batch_1_experts,
    batch_1_mixers,
    batch_1_stacks,
    batch_2_blocks,
    batch_3_blocks,
    batch_4_codebases,
    batch_4_latents,
    batch_4_modalities,
    batch_4_recurrences,
    hostile,
)
from tests.zoo.specimens import ZOO, Specimen

__all__ = [
    "ZOO",
    "Specimen",
    "batch_1_attention",
    "batch_1_experts",
    "batch_1_mixers",
    "batch_1_stacks",
    "batch_2_blocks",
    "batch_3_blocks",
    "batch_4_codebases",
    "batch_4_latents",
    "batch_4_modalities",
    "batch_4_recurrences",
    "hostile",
]
