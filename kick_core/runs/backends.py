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

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.export import checkpoint
from kick_core.compression import activations
from kick_core.engine import Engine, own, vllm
from kick_core.engine import server as serving
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession
from kick_core.models import device_map as mapped
from kick_core.models.source import Source
from kick_core.spec import Recipe

KICK, VLLM = "kick", "vllm"


@dataclass(frozen=True, slots=True)
class Backend:
    """`engine` tells how it asks, before there is anything to ask; `seat` has a checkpoint asked. `warning` is for
    whoever waits."""

    engine: Engine
    serve_recipe: Callable[[EvalSession, Source], AbstractContextManager[EvalSession]]
    warning: str = ""

    @contextmanager
    def serving(self, builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession) -> Iterator[EvalSession]:
        """Whom to ask for a made recipe's answers."""
        with checkpoint(builder, recipe) as folder, self.serve_recipe(ask, folder) as serving:
            yield serving


def host_for(
    engine: str, device_map: str | None, max_memory: str, builder: ArtifactBuilder, ask: EvalSession
) -> Backend | None:
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
        return _vllm(builder, ask, rest)
    return _spread(builder, max_memory) if device_map else None


def _vllm(builder: ArtifactBuilder, ask: EvalSession, text: str) -> Backend:
    asked, found = serving.options(text), serving.installed()
    dtype, context = builder.opened.dtype, ask.context
    settings = {"engine": serving.settings(found, dtype, context, asked)}

    def engine_of(complete: vllm.Complete) -> Engine:
        return vllm.engine(complete, found.device, settings)

    def nobody(body: object) -> dict[str, object]:
        raise AssertionError("no server was started")

    @contextmanager
    def serve_recipe(ask: EvalSession, folder: Source) -> Iterator[EvalSession]:
        _make_room()
        with serving.serve(found, folder.folder, dtype, context, asked) as server:
            yield replace(ask, other=engine_of(server.complete))

    return Backend(engine_of(nobody), serve_recipe)


def _make_room() -> None:
    """Give back what of a GPU this process holds without need: the server measures what is free."""
    gc.collect()
    activations.release()


def _spread(builder: ArtifactBuilder, max_memory: str) -> Backend:
    opened = builder.opened
    dtype = opened.model.dtype
    gpus = opened.model.device.type != "cpu"
    places = mapped.places_for(opened.source, dtype, mapped.memory(max_memory), gpus=gpus)

    def engine_of(model: PreTrainedModel) -> Engine:
        settings = {"layers": "over several devices"} if mapped.spread(places) else {}
        placed = {part: str(place) for part, place in places.items()}
        return replace(own(model), device=mapped.device_type(places), settings=settings, placed=placed)

    @contextmanager
    def serve_recipe(ask: EvalSession, folder: Source) -> Iterator[EvalSession]:
        with tempfile.TemporaryDirectory(prefix="offloaded-", dir=builder.store.root) as scratch:
            model = mapped.open_mapped(folder, dtype, places, Path(scratch))
            try:
                yield replace(ask, model=model, other=engine_of(model))
            finally:
                del model
                _make_room()

    slow = mapped.offloaded(places)
    warning = f"{slow}: that is 10 to 100 times slower than a device that holds it all" if slow else ""
    return Backend(engine_of(opened.model), serve_recipe, warning)
