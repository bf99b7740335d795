"""The keys of an `adapter_config.json`: run by a Python that has peft, prints them one a line."""

import dataclasses

import peft

print(f"# peft {peft.__version__}")
for name in sorted(field.name for field in dataclasses.fields(peft.LoraConfig)):
    print(name)
