"""Which class transformers' automatic classes make of a configuration, where it is not the one that a map was made for."""

from __future__ import annotations

from lorascope.records import ModelMap
from lorascope.sources.gallery import from_gallery, gallery


def whole_class(model: ModelMap) -> str:
    """The class with towers that a trainer loads in place of a map's language model alone; empty if there is none.

    A configuration of a model with towers can be built as its language model alone, under other names
    (`Llama4ForCausalLM` from a configuration of the type `llama4`). Trainers ask for the class with towers first.
    """
    if model.head != "causal-lm" or "image-text-to-text" not in gallery().get(model.model_type, ()):
        return ""
    whole = from_gallery(model.model_type, "image-text-to-text").architecture
    return whole if whole != model.architecture else ""
