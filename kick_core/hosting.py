"""Who answers in place of the open model that wears artifacts: vLLM, or a model spread over devices.

Both are handed a recipe as a plain folder (`export.checkpoint`), so the model itself need fit neither a GPU nor memory:
it is compressed block by block, written block by block, and asked where there is room for it.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from kick_core import statistics
from kick_core.engine import Engine, own, serving, vllm
from kick_core.evaluation import Asker
from kick_core.export import checkpoint
from kick_core.models import mapped
from kick_core.models.source import Source
from kick_core.spec import BadRequest, Recipe
from kick_core.workshop import Workshop

KICK, VLLM = "kick", "vllm"


@dataclass(frozen=True, slots=True)
class Host:
    """`engine` tells how it asks, before there is anything to ask; `seat` has a checkpoint asked. `warning` is for
    whoever waits."""

    engine: Engine
    seat: Callable[[Asker, Source], AbstractContextManager[Asker]]
    warning: str = ""

    @contextmanager
    def seated(self, shop: Workshop, recipe: Recipe, ask: Asker) -> Iterator[Asker]:
        """Whom to ask for a made recipe's answers."""
        with checkpoint(shop, recipe) as folder, self.seat(ask, folder) as seated:
            yield seated


def host_for(engine: str, device_map: str | None, max_memory: str, shop: Workshop, ask: Asker) -> Host | None:
    """The host that a request names; None for this package's engine on the open model. Raises BadRequest."""
    name, _, rest = engine.partition(",")
    if name not in (KICK, VLLM) or (name == KICK and rest):
        raise BadRequest(f"unknown engine {engine!r}: kick, or vllm with settings after commas")
    if max_memory and not device_map:
        raise BadRequest("--max-memory says how much a device map may take: give --device-map auto too")
    if device_map not in (None, "auto"):
        raise BadRequest(f"unknown device map {device_map!r}: auto")
    if name == VLLM and device_map:
        raise BadRequest("--device-map is this package's: with vLLM say --engine vllm,tensor_parallel_size=N")
    if name == VLLM:
        return _vllm(shop, ask, rest)
    return _spread(shop, max_memory) if device_map else None


def _vllm(shop: Workshop, ask: Asker, text: str) -> Host:
    asked, found = serving.options(text), serving.installed()
    dtype, context = shop.opened.dtype, ask.context
    settings = {"engine": serving.settings(found, dtype, context, asked)}

    def engine_of(complete: vllm.Complete) -> Engine:
        return vllm.engine(complete, found.device, settings)

    def nobody(body: object) -> dict[str, object]:
        raise AssertionError("no server was started")

    @contextmanager
    def seat(ask: Asker, folder: Source) -> Iterator[Asker]:
        _make_room()
        with serving.serve(found, folder.folder, dtype, context, asked) as server:
            yield replace(ask, other=engine_of(server.complete))

    return Host(engine_of(nobody), seat)


def _make_room() -> None:
    """Give back what of a GPU this process holds without need: the server measures what is free."""
    gc.collect()
    statistics.release()


def _spread(shop: Workshop, max_memory: str) -> Host:
    opened = shop.opened
    dtype = opened.model.dtype
    gpus = opened.model.device.type != "cpu"
    places = mapped.places_for(opened.source, dtype, mapped.memory(max_memory), gpus=gpus)

    def engine_of(model: PreTrainedModel) -> Engine:
        settings = {"layers": "over several devices"} if mapped.spread(places) else {}
        placed = {part: str(place) for part, place in places.items()}
        return replace(own(model), device=mapped.device_type(places), settings=settings, placed=placed)

    @contextmanager
    def seat(ask: Asker, folder: Source) -> Iterator[Asker]:
        with tempfile.TemporaryDirectory(prefix="offloaded-", dir=shop.store.root) as scratch:
            model = mapped.open_mapped(folder, dtype, places, Path(scratch))
            try:
                yield replace(ask, model=model, other=engine_of(model))
            finally:
                del model
                _make_room()

    slow = mapped.offloaded(places)
    warning = f"{slow}: that is 10 to 100 times slower than a device that holds it all" if slow else ""
    return Host(engine_of(opened.model), seat, warning)
