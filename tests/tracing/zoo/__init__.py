"""Models that no name helps with: written from scratch in the styles that people use, each with its weights' true roles.

Nothing that decides roles may look at them, by name or by shape. Those of `later` were written when the rules for the
others stood, those of `last` when the rules had been mended on `later`, and those of `final` when nothing was to be
mended any more; all three say what they got at first.
"""

from zoo import attention, final, final_2, final_3, final_4, hostile, last, later, mixing, mixtures, stacks
from zoo.specimens import ZOO, Specimen

__all__ = [
    "ZOO",
    "Specimen",
    "attention",
    "final",
    "final_2",
    "final_3",
    "final_4",
    "hostile",
    "last",
    "later",
    "mixing",
    "mixtures",
    "stacks",
]
