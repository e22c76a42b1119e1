"""From recipe and model to a complete artifact in the store, and from there back into a model.

One open model serves a whole sweep: it is made to wear one artifact after the other and the dense weights
again, without being opened anew.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import keys, methods, weights
from kick_core.calibration import digest, token_windows
from kick_core.compression import Walked, make_card, needs_data, walk
from kick_core.models.blocks import Matrix, decoder_blocks, matrices
from kick_core.models.loading import device_of, open_model, open_tokenizer
from kick_core.models.quantized import quantization
from kick_core.models.shards import Shards, open_streamed, path_of, resident, streams
from kick_core.models.source import Source, find
from kick_core.records import BlockReport, LayerReport
from kick_core.spec import DENSE, Calibration, KickError, ModelRef, Recipe, parse
from kick_core.statistics import BATCH
from kick_core.store import Store, artifacts, open_store
from kick_core.store.files import require_space


@dataclass
class OpenModel:
    """A model that can wear any artifact made from it. `wears` is the key of the weights it has on.

    A `streamed` model has its blocks in its files only: it can be compressed, not asked. `shards` are the
    dense weights on disk; where files hold them under other names, a copy in memory stands in.
    """

    source: Source
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    shards: Shards | None = None
    streamed: bool = False
    wears: str = ""
    _dense: dict[str, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def _blocks_path(self) -> str:
        return path_of(self.model, decoder_blocks(self.model))

    def block_matrices(self, block: int) -> list[Matrix]:
        return matrices(decoder_blocks(self.model)[block])

    def dense(self, block: int, matrix: Matrix) -> Tensor:
        """A matrix's dense weight [out, in], on the CPU."""
        if self.shards is None:
            return self._dense[f"{block}.{matrix.name}"]
        return matrix.of(self.shards.read(f"{self._blocks_path}.{block}.{matrix.path}", self.model.dtype))

    def remember_dense(self) -> None:
        """Before the first change: keep the dense matrices, unless they can be read again."""
        if self.shards is None and not self._dense:
            for block in range(len(decoder_blocks(self.model))):
                for matrix in self.block_matrices(block):
                    self._dense[f"{block}.{matrix.name}"] = matrix.read().cpu().clone()

    def wear_dense(self) -> None:
        if self.wears and not self.streamed:
            for block in range(len(decoder_blocks(self.model))):
                for matrix in self.block_matrices(block):
                    matrix.write(self.dense(block, matrix))
        self.wears = ""

    def wear_block(self, block: int, tensors: dict[str, Tensor]) -> None:
        for matrix in self.block_matrices(block):
            matrix.write(weights.decode(matrix.name, self.dense(block, matrix), tensors))

    def wear(self, store: Store, key: str) -> None:
        """Put an artifact's weights on. Raises KickError when it was made from another model."""
        if self.wears == key:
            return
        card = artifacts.card(store, key)
        if card.fingerprint != self.source.fingerprint:
            raise KickError(f"artifact {key} was made from another model ({card.model}), not from {self.source.name}")
        if faults := artifacts.verify(store, key, deep=False):
            raise KickError(f"{faults[0]}: `kick verify` sets it aside, then it is made again")
        self.remember_dense()
        self.wears = key
        for block in range(card.blocks):
            self.wear_block(block, load_file(artifacts.block_path(store, key, block)))

    def hold(self, block: int) -> AbstractContextManager[None]:
        """Have a block's weights in memory while it is worked on."""
        return resident(self.model, self.shards if self.streamed else None, block, self.model.device)


def open_for(ref: ModelRef, store: Store | None, device: str = "auto", *, streamed: bool = False) -> OpenModel:
    """Find, check and open a model with its tokenizer; `streamed` leaves its blocks on disk where that works."""
    source = find(ref, store)
    tokenizer = open_tokenizer(source)
    if quantization(source) is not None:
        return OpenModel(source, open_model(source, ref.dtype, device), tokenizer)
    if streamed:
        wanted = None if ref.dtype == "auto" else getattr(torch, ref.dtype)
        model = open_streamed(source, wanted, device_of(device))
        if model is not None:
            return OpenModel(source, model, tokenizer, Shards(source), streamed=True)
    model = open_model(source, ref.dtype, device)
    shards = Shards(source)
    return OpenModel(source, model, tokenizer, shards if streams(model, shards) else None)


def calibration_facts(calibration: Calibration, ids: Tensor) -> dict[str, Any]:
    """A calibration as keys and cards tell it: the tokens themselves, and where they came from."""
    return {
        "ids": digest(ids),
        "windows": ids.shape[0],
        "length": ids.shape[1],
        "propagate": calibration.propagate,
        "source": calibration.source,
        "seed": calibration.seed,
    }


def artifact_key(opened: OpenModel, recipe: Recipe, facts: dict[str, Any] | None) -> str:
    """The key of what a recipe makes of this model; `facts` of the calibration where the method looks at data."""
    seen = None
    if needs_data(recipe):
        assert facts is not None
        seen = {name: facts[name] for name in ("ids", "propagate")} | {"batch": BATCH, "sums": "float32"}
    solves = methods.needs(recipe) == "gram"
    return keys.key(
        "weights",
        {
            "model": opened.source.fingerprint,
            "dtype": opened.dtype,
            "recipe": methods.payload(recipe),
            "calibration": seen,
            # methods that solve give other bytes on other kinds of device; the rest do not
            "device": opened.model.device.type if solves else None,
        },
    )


def dense_key(opened: OpenModel) -> str:
    """The key that stands for the uncompressed weights."""
    return keys.key("dense", {"model": opened.source.fingerprint, "dtype": opened.dtype})


@dataclass
class Workshop:
    """One open model, one calibration, one store: where artifacts are made."""

    store: Store
    opened: OpenModel
    calibration: Calibration
    _ids: Tensor | None = None

    def ids(self) -> Tensor:
        """The calibration tokens, read once."""
        if self._ids is None:
            self._ids = token_windows(self.calibration, self.opened.tokenizer, self.opened.source.context)
        return self._ids

    def facts(self, recipe: Recipe) -> dict[str, Any] | None:
        return calibration_facts(self.calibration, self.ids()) if needs_data(recipe) else None

    def key(self, recipe: Recipe) -> str:
        """The key of the weights under a recipe, made or not."""
        if recipe == DENSE:
            return dense_key(self.opened)
        return artifact_key(self.opened, recipe, self.facts(recipe))

    def made(self, recipe: Recipe) -> bool:
        return recipe == DENSE or artifacts.has(self.store, self.key(recipe))

    def put_on(self, recipe: Recipe) -> None:
        """Let the model wear a recipe that is made already."""
        if recipe == DENSE:
            self.opened.wear_dense()
        else:
            self.opened.wear(self.store, self.key(recipe))

    def make(self, recipe: Recipe) -> Iterator[BlockReport]:
        """Make the artifact if it is not there, yielding a report per block; the model wears it afterwards.

        A stopped make goes on at its block. If another process makes the same one, this waits and takes it.
        """
        methods.resolve(recipe)
        key = self.key(recipe)
        if recipe != DENSE and not artifacts.has(self.store, key):
            with artifacts.stage(self.store, key) as stage:
                if stage is not None:
                    yield from self._walk(recipe, key, stage)
        if not self.opened.streamed:
            self.put_on(recipe)

    def _walk(self, recipe: Recipe, key: str, stage: artifacts.Stage) -> Iterator[BlockReport]:
        opened, began = self.opened, time.perf_counter()
        opened.remember_dense()
        opened.wear_dense()
        require_space(self.store.root, self._expected_bytes())
        opened.wears = f"unfinished {key}"
        reports, hidden = self._resume(stage, recipe)
        yield from reports
        ids = self.ids().to(opened.model.device) if needs_data(recipe) else None
        propagate = self.calibration.propagate
        for walked in walk(
            opened.model, recipe, ids, propagate=propagate, start=len(reports), hidden=hidden, hold=opened.hold
        ):
            stage.add(walked.report, _block_bytes(walked), _hidden_bytes(walked))
            reports.append(walked.report)
            yield walked.report
        layers = [
            dataclasses.replace(layer, name=f"{report.block}.{layer.name}")
            for report in reports
            for layer in report.layers
        ]
        stage.seal(
            make_card(
                opened.model,
                recipe,
                layers,
                seconds=time.perf_counter() - began,
                key=key,
                name=opened.source.name,
                fingerprint=opened.source.fingerprint,
                calibration=self.facts(recipe),
                size=stage.bytes(),
                warnings=self._warnings(recipe, layers),
            )
        )
        opened.wears = key

    def _resume(self, stage: artifacts.Stage, recipe: Recipe) -> tuple[list[BlockReport], Tensor | None]:
        """Put the whole leading blocks of a stopped make on; returns their reports and the next block's input."""
        reports = stage.reports()
        if not reports:
            return [], None
        hidden = None
        if needs_data(recipe):
            saved = stage.next_input(len(reports))
            if saved is None and len(reports) < reports[0].blocks:
                return [], None
            hidden = load_file(saved)["hidden"] if saved else None
        for report in reports if not self.opened.streamed else ():
            self.opened.wear_block(report.block, load_file(stage.block_file(report.block)))
        return reports, hidden

    def _expected_bytes(self) -> int:
        return 2 * max(matrix.read().nbytes for matrix in self.opened.block_matrices(0))

    def _warnings(self, recipe: Recipe, layers: list[LayerReport]) -> tuple[str, ...]:
        if methods.needs(recipe) != "gram":
            return ()
        tokens, widest = self.ids().numel(), max(layer.cols for layer in layers)
        if tokens >= widest:
            return ()
        return (f"{tokens} calibration tokens are fewer than the widest matrix's {widest} inputs",)


def _block_bytes(walked: Walked) -> bytes:
    tensors: dict[str, Tensor] = {}
    for name, result in walked.results.items():
        tensors |= weights.encode(name, result)
    return save(tensors)


def _hidden_bytes(walked: Walked) -> bytes | None:
    if walked.hidden is None or walked.report.block + 1 == walked.report.blocks:
        return None
    return save({"hidden": walked.hidden.cpu().contiguous()})


def load(
    model: str | ModelRef,
    recipe: str | Recipe = "dense",
    cache: str | None = None,
    *,
    calibration: Calibration | None = None,
    device: str = "auto",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model under a recipe, ready to use, and its tokenizer; from the cache when it is there, else made."""
    ref = model if isinstance(model, ModelRef) else ModelRef(model)
    store = open_store(cache)
    shop = Workshop(store, open_for(ref, store, device), calibration or Calibration())
    for _ in shop.make(parse(recipe)):
        pass
    return shop.opened.model, shop.opened.tokenizer
