"""From the names and shapes that a checkpoint stores to those that the model has when it runs.

transformers 5 renames and merges on loading: experts one by one in the file are one parameter of the model. Its rules
are data (`data/conversions.json`, written by `tools/build_conversions.py`). What they mean is restated here without
tensors: `table` says which rules a model has, `renaming` what they do to names, `operations` what they do to shapes,
`converting` does both to a checkpoint.
"""

from lorascope.sources.conversions.converting import Converted, convert
from lorascope.sources.conversions.table import Operation, Rule, SubModel, rules_for, version

__all__ = ["Converted", "Operation", "Rule", "SubModel", "convert", "rules_for", "version"]
