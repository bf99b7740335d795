"""Quantized checkpoints without their packing, one file per family."""
