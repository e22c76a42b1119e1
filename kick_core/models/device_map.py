"""Models that no single device holds: their parts over the GPUs of a machine, then its memory, then its disk.

accelerate decides where each part lies and brings what is not on a device to one when it is its turn; parts on disk
stay in the checkpoint's own files, mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import infer_auto_device_map, init_empty_weights
from accelerate.utils import get_balanced_memory, get_max_memory
from transformers import PreTrainedModel

from kick_core.errors import BadRequest
from kick_core.models.loading import require_all_keys
from kick_core.models.opener import config_of, opener
from kick_core.models.quantized import quantization
from kick_core.models.source import Source, opening

Places = Mapping[str, int | str]
"""Part of the model -> number of a GPU, "cpu" or "disk"."""


def memory(text: str) -> dict[int | str, str]:
    """`0=20GiB,cpu=60GiB` as accelerate takes it. Raises BadRequest for anything else."""
    from accelerate.utils import convert_file_size_to_int

    found: dict[int | str, str] = {}
    for word in filter(None, text.split(",")):
        name, _, size = word.partition("=")
        place: int | str = int(name) if name.isdecimal() else name
        try:
            fits = (place == "cpu" or isinstance(place, int)) and convert_file_size_to_int(size) >= 0
        except ValueError:
            fits = False
        if not fits:
            raise BadRequest(f"--max-memory {word!r}: write a GPU's number or cpu, and a size, e.g. 0=20GiB,cpu=60GiB")
        if isinstance(place, int) and place >= torch.cuda.device_count():
            raise BadRequest(f"--max-memory {word!r}: this machine has {torch.cuda.device_count()} GPUs")
        found[place] = size
    return found


def places_for(
    source: Source, dtype: torch.dtype, most: Mapping[int | str, str], *, gpus: bool = True
) -> dict[str, int | str]:
    """Where the parts of a model go, as transformers' `device_map="auto"` does it; nothing is read."""
    if quantization(source) is not None:
        raise BadRequest(f"{source.folder} is quantized already: such folders are opened in one place")
    with opening(source):
        config = config_of(source)
        with init_empty_weights():
            model: PreTrainedModel = opener(source, config).from_config(config, dtype=dtype)
        model.tie_weights()
        whole = list(model._no_split_modules or ())
        room = {n: size for n, size in get_max_memory(dict(most) or None).items() if gpus or n == "cpu"}
        room = get_balanced_memory(model, max_memory=room, no_split_module_classes=whole, dtype=dtype)
        found: dict[str, int | str] = infer_auto_device_map(
            model, max_memory=room, no_split_module_classes=whole, dtype=dtype, fallback_allocation=True
        )
    return found


def device_type(places: Places) -> str:
    """The kind of device that computes: a GPU where there is one, the CPU also for what lies on disk."""
    return "cuda" if any(isinstance(place, int) for place in places.values()) else "cpu"


def spread(places: Places) -> bool:
    """Whether computing itself is other than in one place: layers on several devices, or brought to a GPU in turn.

    Without a GPU everything is computed on the CPU, wherever it lies.
    """
    return len(set(places.values())) > 1 and device_type(places) == "cuda"


def offloaded(places: Places) -> str:
    """What is not where it is computed, in words; empty when nothing is."""
    far = ("cpu", "disk") if device_type(places) == "cuda" else ("disk",)
    slow = [place for place in places.values() if place in far]
    if not slow:
        return ""
    return f"{len(slow)} of {len(places)} parts of the model do not fit ({' and '.join(sorted(set(map(str, slow))))})"


def open_mapped(source: Source, dtype: torch.dtype, places: Places, scratch: Path) -> PreTrainedModel:
    """The model with its parts in their places. `scratch` takes parts whose files hold another dtype."""
    with opening(source):
        model, facts = opener(source).from_pretrained(
            source.folder,
            dtype=dtype,
            device_map=dict(places),
            offload_folder=str(scratch),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    require_all_keys(source, facts)
    opened: PreTrainedModel = model.eval()
    return opened
