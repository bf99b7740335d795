"""Models that no name helps with: written from scratch in the styles that people use, each with its weights' true roles.

Nothing that decides roles may look at them, by name or by shape. Those of `later` were written when the rules for the
others stood, and those of `last` when the rules had been mended on `later`; both say what they got at first.
"""

from zoo import attention, hostile, last, later, mixing, mixtures, stacks
from zoo.specimens import ZOO, Specimen

__all__ = ["ZOO", "Specimen", "attention", "hostile", "last", "later", "mixing", "mixtures", "stacks"]
