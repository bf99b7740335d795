"""Models that no name helps with: written from scratch in the styles that people use, each with its weights' true roles.

Nothing that decides roles may look at them, by name or by shape. Those of `later` were written when the rules for the
others stood.
"""

from zoo import attention, hostile, later, mixing, mixtures, stacks
from zoo.specimens import ZOO, Specimen

__all__ = ["ZOO", "Specimen", "attention", "hostile", "later", "mixing", "mixtures", "stacks"]
