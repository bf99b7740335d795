"""Models that no name helps with: written from scratch in the styles that people use, each with its weights' true roles.

They are held out: nothing that decides roles may look at them, by name or by shape.
"""

from zoo import attention, hostile, mixing, mixtures, stacks
from zoo.specimens import ZOO, Specimen

__all__ = ["ZOO", "Specimen", "attention", "hostile", "mixing", "mixtures", "stacks"]
