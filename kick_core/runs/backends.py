"""Who generates in place of the open model with artifacts applied: vLLM, or a model spread over devices.

Both get a recipe as a plain folder (`export.checkpoint`), so the model itself need fit neither a GPU nor memory: it is
compressed block by block, written block by block, and evaluated where there is space for it.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True, slots=True)
class Backend:
    """Another inference backend.

    Attributes:
        engine: Its description, known before anything is evaluated: run keys depend on it.
        serve_recipe: Serves a checkpoint folder inside a `with` block and gives the session that generates with it.
        warning: For the user who waits; empty where there is nothing to say.
    """

    engine: Engine
    serve_recipe: Callable[[EvalSession, Source], AbstractContextManager[EvalSession]]
    warning: str = ""

    @contextmanager
    def serving(self, builder: ArtifactBuilder, recipe: Recipe, session: EvalSession) -> Iterator[EvalSession]:
        """Serve a recipe whose artifact is built already.

        Args:
            builder: Of the model.
            recipe: What is applied.
            session: The evaluation of the open model.

        Yields:
            The session whose engine is this backend.
        """
        with checkpoint(builder, recipe) as folder, self.serve_recipe(session, folder) as served:
            yield served


def backend_for(
    engine: str, device_map: str | None, max_memory: str, builder: ArtifactBuilder, session: EvalSession
) -> Backend | None:
    """The backend that a request names.

    Args:
        engine: One of `ENGINES`, with settings after commas.
        device_map: `auto` spreads the model over devices; None does not.
        max_memory: How much of each device a map may take, as in `0=20GiB,cpu=60GiB`.
        builder: Of the model.
        session: The evaluation of the open model.

    Returns:
        None for this package's engine on the open model.

    Raises:
        BadRequest: The engine or map is unknown, or settings contradict each other.
    """
    name, _, settings = engine.partition(",")
    if name not in ENGINES or (ENGINES[name] is None and settings):
        known = ", or ".join(name + (" with settings after commas" if serve else "") for name, serve in ENGINES.items())
        raise BadRequest(f"unknown engine {engine!r}: {known}")
    if max_memory and not device_map:
        raise BadRequest("--max-memory says how much a device map may take: give --device-map auto too")
    if device_map not in (None, "auto"):
        raise BadRequest(f"unknown device map {device_map!r}: auto")
    serve = ENGINES[name]
    if serve and device_map:
        raise BadRequest(
            f"--device-map is this package's: --engine {name} has settings of its own, such as tensor_parallel_size=N"
        )
    if serve:
        return serve(builder, session, settings)
    return _spread(builder, max_memory) if device_map else None


def _vllm(builder: ArtifactBuilder, session: EvalSession, text: str) -> Backend:
    options, environment = serving.options(text), serving.installed()
    dtype, context = builder.opened.dtype, session.context
    settings = {"engine": serving.settings(environment, dtype, context, options)}

    def engine_of(complete: vllm.Complete) -> Engine:
        return vllm.engine(complete, environment.device, settings)

    def unserved(body: object) -> dict[str, object]:
        raise AssertionError("no server was started")

    @contextmanager
    def serve_recipe(session: EvalSession, folder: Source) -> Iterator[EvalSession]:
        _free_memory()
        with serving.serve(environment, folder.folder, dtype, context, options) as server:
            yield replace(session, other=engine_of(server.complete))

    return Backend(engine_of(unserved), serve_recipe)


def _free_memory() -> None:
    """Free what this process holds of a GPU without need: the server measures what is available."""
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
    def serve_recipe(session: EvalSession, folder: Source) -> Iterator[EvalSession]:
        with tempfile.TemporaryDirectory(prefix="offloaded-", dir=builder.store.root) as scratch:
            model = mapped.open_mapped(folder, dtype, places, Path(scratch))
            try:
                yield replace(session, model=model, other=engine_of(model))
            finally:
                del model
                _free_memory()

    offloaded = mapped.offloaded(places)
    warning = f"{offloaded}: that is 10 to 100 times slower than a device that holds it all" if offloaded else ""
    return Backend(engine_of(opened.model), serve_recipe, warning)


ENGINES: Mapping[str, Callable[[ArtifactBuilder, EvalSession, str], Backend] | None] = {"kick": None, "vllm": _vllm}
"""Engine -> what starts it, from its settings as written after the first comma; None: this package's, on the open
model."""
