"""Prints the arguments of `peft.LoraConfig`, one a line."""

import dataclasses

import peft

print(f"# peft {peft.__version__}")
for name in sorted(field.name for field in dataclasses.fields(peft.LoraConfig)):
    print(name)
