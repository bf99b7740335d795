"""Every model type of transformers outside the built-in maps: what remains without a role, and what each reads.

The classes are built on the meta device from their default configurations; roles decided by reading `forward` stand in
`tests/data/expectations/outside_roles.tsv`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from lorascope.model.types import ModelMap
from lorascope.names import template
from lorascope.plans.rules import own_components
from tests.helpers.expectations import rows

pytestmark = pytest.mark.slow

# The mappings that are asked for a class, the first that has the type: the model with a head shows more.
_MAPPINGS = (
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_CTC_MAPPING_NAMES",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)

# Share of the parameters (convolutions apart) that is `other` although it is known what they are: kernels of transposed
# or weight-normalized convolutions, recurrent layers that PyTorch reads in one list, readouts, per-layer inputs.
KNOWN_OTHER = frozenset(
    [
        "bark",
        "dac",
        "embedding_gemma2",
        "embedding_gemma2_text",
        "encodec",
        "fastspeech2_conformer_with_hifigan",
        "mimi",
        "mimi_decoder",
        "nemotron3_5_transcribe_word_timestamp",
        "pocket_tts_audio_tokenizer",
        "pocket_tts_audio_tokenizer_decoder",
        "univnet",
        "vibevoice_acoustic_tokenizer",
        "vibevoice_acoustic_tokenizer_decoder",
        "vits",
        "xcodec",
        "wavtokenizer",
        "wavtokenizer_encoder",
    ]
)

# Share in doubt: in each, matrices whose names and shapes do not say what they do.
IN_DOUBT = {
    "clvp": "a conditioning encoder beside three stacks of other widths",
    "grounding-dino": "the component of a stack as wide as neither tower: fuses images and texts",
    "lightglue": "one projection for each layer's match scores",
    "mm-grounding-dino": "as grounding-dino",
    "omdet-turbo": "the component of a stack as wide as neither tower",
    "patchtsmixer": "gates and scales of time series, tiny",
    "pp_doclayout_v2": "the component of the detector beside a text model of reading order",
    "sam3": "the component of the detector's stacks beside CLIP's text tower",
    "sam3_lite_text": "as sam3",
    "sam3_video": "as sam3",
}


@cache
def outside_maps() -> dict[str, ModelMap]:
    """One map for each type that no built-in map has and that its default configuration builds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the modeling code
        return dict(_build())


def _build() -> Iterator[tuple[str, ModelMap]]:
    import architectures
    import transformers
    from transformers.models.auto import modeling_auto

    from lorascope.errors import LorascopeError
    from lorascope.sources.transformers.meta_model import build, map_module

    transformers.logging.set_verbosity_error()
    architectures.mend_torchvision()
    inside = {entry.model_type for entry in architectures.entries()}
    chosen: dict[str, list[str]] = {}
    for mapping in _MAPPINGS:
        for model_type, names in getattr(modeling_auto, mapping).items():
            if model_type not in inside:
                chosen.setdefault(model_type, []).append(names if isinstance(names, str) else names[0])
    for model_type, architectures_ in sorted(chosen.items()):
        for architecture in architectures_:
            try:
                config = transformers.AutoConfig.for_model(model_type)
                yield model_type, map_module(build(config, architecture=architecture), model=model_type)
                break
            except (LorascopeError, AttributeError, TypeError, ValueError, ImportError, KeyError):
                continue  # its default configuration builds no such model


def _shares(model: ModelMap) -> tuple[float, float]:
    """Shares of the matrices that are known to be `other`, and that are in doubt."""
    matrices = [weight for weight in model.weights if weight.kind != "conv"]
    whole = sum(weight.size for weight in matrices) or 1
    doubt = sum(weight.size for weight in matrices if weight.guess)
    other = sum(weight.size for weight in matrices if weight.role.block == "other" and not weight.guess)
    return other / whole, doubt / whole


def test_what_no_role_fits_is_listed_type_by_type() -> None:
    shares = {model_type: _shares(model) for model_type, model in outside_maps().items()}
    assert {model_type for model_type, (other, _) in shares.items() if other > 0.02} == KNOWN_OTHER
    assert {model_type for model_type, (_, doubt) in shares.items() if doubt > 0.02} == IN_DOUBT.keys()
    assert len(shares) == 289


def test_stand_alone_towers_are_what_they_read() -> None:
    found = Counter("+".join(sorted(own_components(model))) for model in outside_maps().values())
    assert found == {"vision": 141, "text": 83, "audio+text": 6, "audio": 49, "codec": 10}
    main = {name: "+".join(sorted(own_components(model))) for name, model in outside_maps().items()}
    for component, names in {
        "vision": "vit dinov2 dinov3_vit siglip_vision_model clip_vision_model swin swinv2 sam sam2 detr beit deit convnext",
        "audio": "wav2vec2 hubert wavlm data2vec-audio wav2vec2-bert audio-spectrogram-transformer parakeet_encoder",
        "codec": "encodec mimi dac xcodec",
        "text": "chinese_clip clip_text_model dpr",
        "audio+text": "canary cohere_asr moonshine speech-encoder-decoder speech_to_text speecht5",
    }.items():
        assert {main[name] for name in names.split()} == {component}, component


def test_roles_outside_are_those_of_the_forward_pass() -> None:
    maps = outside_maps()
    wrong = []
    used = 0
    for model_type, pattern, role, _ in rows("outside_roles"):
        weights = [weight for weight in maps[model_type].weights if template(weight.name) == pattern]
        used += len(weights)
        found = {f"{weight.role}{'?' if weight.guess else ''}" for weight in weights}
        if found != {role}:
            wrong.append((model_type, pattern, sorted(found), role))
    assert wrong == []
    assert used == 2_125
