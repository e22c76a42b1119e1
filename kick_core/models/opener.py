"""Which of the library's classes opens a folder: a causal language model, or one of several modalities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from accelerate import init_empty_weights
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from kick_core.models.checkpoint_names import fits
from kick_core.models.source import Source
from kick_core.models.tensor_files import TensorFiles

_CLASSES: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM)


def config_of(source: Source) -> PretrainedConfig:
    """A folder's config."""
    config: PretrainedConfig = AutoConfig.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    return config


def opener(source: Source, config: PretrainedConfig | None = None, names: Iterable[str] | None = None) -> Any:
    """The library's class whose `from_pretrained` and `from_config` give a folder's model.

    It is the causal language model where the library has one for the config and the files are of it; else the model of
    several modalities, which is asked for text alone.

    Args:
        source: The folder.
        config: Its config, where that is read already.
        names: The names of its tensors; None reads them where they decide.
    """
    config = config_of(source) if config is None else config
    classes = [auto for auto in _CLASSES if type(config) in auto._model_mapping and not config.is_encoder_decoder]
    if len({auto._model_mapping[type(config)] for auto in classes}) < 2:
        return classes[0] if classes else AutoModelForCausalLM
    names = TensorFiles(source).names if names is None else list(names)
    for auto in classes:
        with init_empty_weights():
            model = auto.from_config(config)
        if fits(model, names):
            return auto
    return classes[0]


def whole_model(source: Source) -> PreTrainedModel | None:
    """The model that a folder's config names, on meta, where that is another class than the one that opens it here."""
    config = config_of(source)
    auto, named = opener(source, config), (config.architectures or [""])[0]
    for other in _CLASSES:
        if type(config) in other._model_mapping and other._model_mapping[type(config)].__name__ == named:
            if other is auto or named == auto._model_mapping[type(config)].__name__:
                return None
            with init_empty_weights():
                model: PreTrainedModel = other.from_config(config)
            return model
    return None
