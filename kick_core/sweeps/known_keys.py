"""What a sweep would be, remembered: the keys of its cells, so that planning it again opens nothing.

The keys of artifacts and runs hold hashes of calibration tokens and of windows, and those need the tokenizer, which
brings torch: seconds, for a plan that has nothing left to do. So whoever opens a sweep notes its keys in `plans/`
(they are small), under a name made of everything that they follow from: the model's files, the request, the files of
the calibration and the data, and this program's own. Whatever changes, the note is simply not found. A note tells
plans alone; what is made or asked is never decided by one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kick_core
from kick_core import keys, tasks
from kick_core.models.source import find
from kick_core.spec import DENSE, ModelRef
from kick_core.store import Store
from kick_core.store.files import replace_file
from kick_core.sweeps.request import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kick_core.runs.measure import TaskData
    from kick_core.sweeps.grid import Sweep

SAMPLE = 64
"""Examples whose tokens are counted; they are in random order, so these stand for all."""


def recall(store: Store, request: Request) -> dict[str, Any] | None:
    """What is known of a sweep, when it is all of it; opens neither weights nor tokenizer, and needs no torch."""
    if request.hosted:  # which vLLM there is, or how much memory, is seen only by looking
        return None
    path = _path(store, request)
    try:
        known: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    recipes = [recipe.text for recipe in request.parsed()]
    there = all(text in known["artifacts"] for text in recipes)
    for task in request.tasks:
        there = there and task in known["tasks"] and all(text in known["runs"][task] for text in recipes)
    if request.fidelity:
        there = there and tasks.running_text() in known["tasks"] and all(text in known["fidelity"] for text in recipes)
        there = there and all(
            all(text in known["texts"].get(task, recipes) for text in recipes) for task in request.tasks
        )
    return known if there else None


def remember(store: Store, sweep: Sweep) -> dict[str, Any]:
    """Note what an open sweep is, beside what was known before; returns it all."""
    path = _path(store, sweep.request)
    try:
        known: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {"artifacts": {}, "runs": {}, "again": {}, "fidelity": {}, "texts": {}, "tasks": {}}
    known["model"] = _model(sweep)
    known["artifacts"] |= {recipe.text: sweep.builder.key(recipe) for recipe in sweep.recipes}
    for name in sweep.data:
        known["runs"].setdefault(name, {}).update({r.text: sweep.card(r, name).key for r in sweep.recipes})
        known["again"][name] = sweep.card(DENSE, name, again=True).key
    if sweep.text:
        _remember_fidelity(known, sweep, sweep.text)
    loaded = sweep.data | ({sweep.text.task.name: sweep.text} if sweep.text else {})
    for name, data in loaded.items():
        if name not in known["tasks"]:
            known["tasks"][name] = {"total": len(data.examples), "tokens": _tokens(sweep, data)}
    replace_file(path, json.dumps(known, sort_keys=True).encode())
    return known


def _remember_fidelity(known: dict[str, Any], sweep: Sweep, text: TaskData) -> None:
    from kick_core.runs import dense_replay, fidelity

    builder, ask = sweep.builder, sweep.ask
    known["fidelity"] |= {r.text: fidelity.card(builder, r, ask, text).key for r in sweep.recipes}
    for name, loaded in sweep.data.items():
        if loaded.task.kind in dense_replay.KINDS:
            found = {r.text: dense_replay.card(builder, r, ask, loaded).key for r in sweep.recipes}
            known["texts"].setdefault(name, {}).update(found)


def _model(sweep: Sweep) -> dict[str, Any]:
    opened, calibration = sweep.builder.opened, sweep.builder.calibration
    return sizes(opened.model) | {
        "name": opened.source.name,
        "fingerprint": opened.source.fingerprint,
        "dtype": opened.dtype,
        "decoder": opened.decoder,
        "device": opened.model.device.type,
        "window": sweep.ask.window,
        "calibration": calibration.most_windows * (calibration.length or min(2048, opened.source.context)),
    }


def sizes(model: PreTrainedModel) -> dict[str, Any]:
    """What work and bytes follow from: parameters, the shapes [out, in] of the matrices in a block, blocks, weights of
    the output head, width of attention, bits a weight.
    """
    from kick_core.models.blocks import decoder_blocks, matrices

    blocks, config = decoder_blocks(model), model.config.get_text_config()
    head = getattr(model.get_output_embeddings(), "weight", None)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "blocks": len(blocks),
        "matrices": [list(matrix.read().shape) for matrix in matrices(blocks[0])],
        "head": 0 if head is None else head.numel(),
        "attention": width * config.num_attention_heads,
        "bits": 8 * model.dtype.itemsize,
    }


def _tokens(sweep: Sweep, loaded: Any) -> list[list[int]]:
    """For some examples the length of every sequence that is read and written, new tokens at their most."""
    from kick_core.models.tokenization import dialogue, encode

    ask, way, found = sweep.ask, loaded.way, []
    for example in loaded.examples[:SAMPLE]:
        match way.kind:
            case "perplexity":
                found.append([len(example.meta.get("ids") or encode(ask.tokenizer, example.prompt[0]))])
            case "dialogue":
                turns = range(1, len(example.prompt) + 1)
                said = [""] * len(example.prompt)
                texts = [dialogue(ask.tokenizer, example.prompt[:n], said[: n - 1], way.template) for n in turns]
                found.append([len(encode(ask.tokenizer, t)) + way.new_tokens * (n + 1) for n, t in enumerate(texts)])
            case "choose":
                options = sum(len(encode(ask.tokenizer, option)) for option in example.choices)
                found.append([len(encode(ask.tokenizer, "".join(example.prompt))) + options])
            case _:
                prompt = len(encode(ask.tokenizer, "".join(example.prompt)))
                found.append([prompt + (way.times_prompt * prompt or way.new_tokens)])
    return found


# --- what a note's name is made of ---------------------------------------------------------------------------


def _path(store: Store, request: Request) -> Path:
    source = find(ModelRef(request.model, request.revision, request.dtype), store)  # type: ignore[arg-type]
    about = {
        "model": source.fingerprint,
        "dtype": request.dtype,
        "device": device(request.device),
        "calibration": {**request.to_json()["calibration"], "file": _state(Path(request.calibration.source))},
        "data": request.data,
        "files": _state(Path(request.data)),
        "protocol": request.protocol,
        "shots": request.shots,
        "host": [request.engine, request.device_map, request.max_memory],
        "program": _program(),
    }
    return store.root / "plans" / f"{keys.key('plan', about)}.json"


def _state(path: Path) -> list[list[Any]]:
    """Names, sizes and times of a file, or of all files of a folder; nothing for what is neither."""
    if path.is_file():
        return _states([path])
    return _states(sorted(path.rglob("*"))) if path.is_dir() else []


def _states(paths: Iterable[Path]) -> list[list[Any]]:
    found = []
    for path in paths:
        stat = path.stat()
        found.append([str(path), stat.st_size, stat.st_mtime_ns])
    return found


@cache
def _program() -> str:
    """A hash over the state of every file of this package, data included."""
    root = Path(kick_core.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".json", ".jsonl", ".txt", ".jinja"))
    return keys.sha256_text(keys.canonical([kick_core.__version__, _states(files)]))


_DRIVERS = ("nvidia0", "nvidiactl", "dxg", "kfd")
"""Without one of these in /dev no Linux offers torch a device."""


def device(name: str) -> str:
    """The kind of device that a name means. Asks torch only where there may be more than a CPU."""
    if name != "auto" or (sys.platform == "linux" and not any(os.path.exists(f"/dev/{d}") for d in _DRIVERS)):
        return "cpu" if name == "auto" else name.partition(":")[0]
    from kick_core.models.loading import device_of

    return device_of(name).type
