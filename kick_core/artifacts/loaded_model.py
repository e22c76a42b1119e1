"""An open model to which any artifact built from it can be applied, and the keys of what can be built.

One open model serves a whole sweep: one artifact after the other is applied, and the dense weights again, without
opening it anew.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import keys, methods, tasks, timing
from kick_core.artifacts.read_ahead import ReadAhead
from kick_core.compression import codec
from kick_core.compression.activations import BATCH
from kick_core.compression.calibration import digest
from kick_core.compression.walk import needs_data
from kick_core.errors import KickError
from kick_core.models.blocks import (
    Matrix,
    decoder_blocks,
    found_otherwise,
    matrices,
    once_overlooked,
    plain_products,
    understood,
)
from kick_core.models.loading import device_of, open_model, open_tokenizer
from kick_core.models.quantized import decoder, quantization
from kick_core.models.replay import carried
from kick_core.models.shards import Shards, mapped, open_streamed, path_of, resident
from kick_core.models.source import Source, find
from kick_core.spec import Calibration, ModelRef, Recipe
from kick_core.store import Store, weight_artifacts


@dataclass
class OpenModel:
    """A model to which any artifact built from it can be applied.

    Where the files hold the dense weights under other names, a copy stays in memory. On a GPU with enough memory a
    second copy stays there, so that applying an artifact moves only its own bits.

    Attributes:
        source: The model's files.
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        shards: The dense weights on disk; None where the copy in memory is needed.
        streamed: The blocks are in the files only: it can be compressed, not evaluated.
        active_key: The key of the artifact that is applied; empty for dense weights.
        ahead: Reads the artifact that is applied next.
    """

    source: Source
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    shards: Shards | None = None
    streamed: bool = False
    active_key: str = ""
    ahead: ReadAhead = field(default_factory=ReadAhead)
    _dense: dict[str, Tensor] = field(default_factory=dict)
    _let_go: Callable[[], object] | None = None
    _resident: dict[str, Tensor] = field(default_factory=dict)
    _matrices: dict[int, list[Matrix]] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def decoder(self) -> str:
        """What decoded the model's files where they were quantized already; empty for plain ones."""
        return decoder(self.source)

    @cached_property
    def _blocks_path(self) -> str:
        return path_of(self.model, decoder_blocks(self.model))

    def blocks(self) -> nn.ModuleList:
        """The decoder blocks. Raises KickError when something in them was not understood."""
        return understood(self.model, self.hold)

    def block_matrices(self, block: int) -> list[Matrix]:
        """The matrices of a block that are compressed. Raises KickError as `blocks` does."""
        if block not in self._matrices:  # finding the blocks among all modules takes longer than putting a mask on one
            self._matrices[block] = matrices(self.blocks()[block])
        return self._matrices[block]

    def dense(self, block: int, matrix: Matrix) -> Tensor:
        """A matrix's dense weight [out, in], on the CPU."""
        if self.shards is None:
            return self._dense[f"{block}.{matrix.name}"]
        return matrix.of(self.shards.read(f"{self._blocks_path}.{block}.{matrix.path}", matrix.parameter.dtype))

    def base(self, block: int, matrix: Matrix) -> Tensor:
        """A matrix's dense weight [out, in]: the copy on the GPU, where there is one."""
        resident_copy = self._resident.get(f"{block}.{matrix.name}")
        return self.dense(block, matrix) if resident_copy is None else resident_copy

    def _settle(self) -> None:
        """Keep the dense matrices on the GPU too, while a quarter of its memory stays free for work."""
        device = self.model.device
        if self._resident or self.streamed or device.type != "cuda" or self.active_key:
            return
        all_of = [(n, m) for n in range(len(decoder_blocks(self.model))) for m in self.block_matrices(n)]
        free, total = torch.cuda.mem_get_info(device)
        if free - sum(matrix.read().nbytes for _, matrix in all_of) > total // 4:
            self._resident = {f"{block}.{matrix.name}": matrix.read().clone() for block, matrix in all_of}

    def remember_dense(self) -> None:
        """Before the first change: keep the dense matrices, unless they can be read again."""
        self._settle()
        if self.shards is None and not self._dense:
            for block in range(len(decoder_blocks(self.model))):
                for matrix in self.block_matrices(block):
                    self._dense[f"{block}.{matrix.name}"] = matrix.read().cpu().clone()

    def restore_dense(self) -> None:
        if self.active_key and not self.streamed:
            for block in range(len(decoder_blocks(self.model))):
                for matrix in self.block_matrices(block):
                    matrix.write(self.base(block, matrix))
        self.release()
        self.active_key = ""

    def _hold(self, store: Store, key: str) -> None:
        """Keep others from removing the applied artifact, as long as this model is there."""
        self.release()
        handle = weight_artifacts.hold(store, key)
        if handle is not None:
            self._let_go = weakref.finalize(self, os.close, handle)

    def release(self) -> None:
        """Let others remove the applied artifact from the cache; its weights stay in the model."""
        if self._let_go is not None:
            self._let_go()
        self._let_go = None

    def apply_block(self, block: int, tensors: dict[str, Tensor]) -> None:
        for matrix in self.block_matrices(block):
            # a streamed block is dense whenever it comes
            base = matrix.read() if self.streamed else self.base(block, matrix)
            codec.decode_into(matrix.read(), matrix.name, base, tensors)

    def apply_weights(self, store: Store, key: str) -> None:
        """Apply an artifact's weights.

        Args:
            store: The cache that holds it.
            key: Its key.

        Raises:
            KickError: It was built from another model, or is damaged.
        """
        if self.active_key != key or self._let_go is None:
            self._hold(store, key)
        if self.active_key == key:
            return
        card = weight_artifacts.card(store, key)
        if card.fingerprint != self.source.fingerprint:
            raise KickError(f"artifact {key} was made from another model ({card.model}), not from {self.source.name}")
        if faults := weight_artifacts.verify(store, key, deep=False):
            raise KickError(f"{faults[0]}: `kick verify` sets it aside, then it is made again")
        self.remember_dense()
        read = self.ahead.take(key)[::-1]
        self.active_key = key
        for block in range(card.blocks):
            self.apply_block(block, read.pop() if read else weight_artifacts.tensors(store, key, block, "pt"))

    def hold(self, block: int) -> AbstractContextManager[None]:
        """Keep a block's weights in memory inside a `with` block.

        Args:
            block: Its number.
        """
        return resident(self.model, self.shards if self.streamed else None, block, self.model.device)


def open_for(ref: ModelRef, store: Store | None, device: str = "auto", *, streamed: bool = False) -> OpenModel:
    """Find, check and open a model with its tokenizer.

    Args:
        ref: The model, its revision and dtype.
        store: Where fingerprints of files are remembered; None: nowhere.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        streamed: Leave its blocks on disk, where the files allow that.

    Raises:
        BadRequest: The model or device is unknown.
        KickError: The model cannot be read.
    """
    source = find(ref, store)
    tokenizer = open_tokenizer(source, ref.bos)
    return opened_model(source, tokenizer, open_weights(source, ref.dtype, device, streamed=streamed))


class Weights(NamedTuple):
    """A model of which nothing says yet which one it is; `opened_model` takes it with its fingerprint.

    Attributes:
        model: In evaluation mode.
        shards: As in `OpenModel`.
        streamed: As in `OpenModel`.
    """

    model: PreTrainedModel
    shards: Shards | None = None
    streamed: bool = False


def open_weights(source: Source, dtype: str, device: str, *, streamed: bool) -> Weights:
    """Open a model's weights; of the source its files count, not its fingerprint.

    Args:
        source: The model's files.
        dtype: `auto` is the model's own.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        streamed: Leave its blocks on disk, where the files allow that.

    Raises:
        BadRequest: The device is unknown.
        KickError: The model cannot be read.
    """
    with timing.stage("open"):
        if quantization(source) is not None:
            return Weights(open_model(source, dtype, device))
        if streamed:
            wanted = None if dtype == "auto" else getattr(torch, dtype)
            streamed_model = open_streamed(source, wanted, device_of(device))
            if streamed_model is not None:
                return Weights(streamed_model, Shards(source, streamed_model), streamed=True)
        model = open_model(source, dtype, device)
        shards = Shards(source, model)
        return Weights(model, shards if mapped(model, shards) else None)


def opened_model(source: Source, tokenizer: PreTrainedTokenizerBase, weights: Weights) -> OpenModel:
    """Weights and a tokenizer as the model that a fingerprint names."""
    assert source.fingerprint, "keys hold the fingerprint of the files"
    return OpenModel(source, weights.model, tokenizer, weights.shards, weights.streamed)


def calibration_facts(calibration: Calibration, ids: Tensor) -> dict[str, Any]:
    """A calibration as keys and cards hold it: the tokens themselves, and where they came from.

    Args:
        calibration: The settings.
        ids: The token ids [windows, length].
    """
    return {
        "ids": digest(ids),
        "windows": ids.shape[0],
        "length": ids.shape[1],
        "propagate": calibration.propagate,
        "source": calibration.source,
        "seed": calibration.seed,
    } | ({"min_tokens": calibration.min_tokens} if calibration.min_tokens != 1 else {})


SOLVED_ON = {"cuda": "cuda 2"}
"""How a kind of device solves, where that changed: raised when factors or sums get other last bits there."""


def artifact_key(
    opened: OpenModel, recipe: Recipe, facts: dict[str, Any] | None, trained_on: Tensor | None = None
) -> str:
    """The key of what a recipe makes of this model.

    Args:
        opened: The model.
        recipe: Resolved or not.
        facts: Of the calibration, where the recipe looks at data.
        trained_on: The token ids that a recovery by training reads [windows, length].
    """
    opened.blocks()
    calibration = None
    if needs_data(recipe):
        assert facts is not None
        calibration = {name: facts[name] for name in ("ids", "propagate")} | {"batch": BATCH, "sums": "float32"}
        # inputs of such linears were once overlooked, and artifacts made on flat statistics
        calibration |= {"products": "seen"} if plain_products(opened.model) else {}
        calibration |= {"products": "watched"} if once_overlooked(opened.model) else {}
        calibration |= {"calls": "carried"} if carried(opened.model, opened.hold) else {}
        calibration |= {"min_tokens": facts["min_tokens"]} if "min_tokens" in facts else {}
    solves = methods.needs(recipe) == "gram" or methods.plans(recipe) or methods.recovery(recipe) is not None
    trained = {} if trained_on is None else {"trained on": digest(trained_on)}
    # routers were once compressed in some families, and matrices that are no linears left out
    blocks = {"matrices": "watched"} if found_otherwise(opened.model) else {}
    return keys.key(
        "weights",
        trained
        | blocks
        | {
            "model": opened.source.fingerprint,
            "dtype": opened.dtype,
            "recipe": methods.payload(recipe),
            "calibration": calibration,
            **_judged_by(recipe),
            # methods that solve, and plans, give other bytes on other kinds of device; the rest do not
            "device": SOLVED_ON.get(device := opened.model.device.type, device) if solves else None,
        },
    )


def _judged_by(recipe: Recipe) -> dict[str, Any]:
    """The scorer of a search's answers, where its objective is a task."""
    name = methods.objective(recipe)
    if name in (None, methods.ERROR, methods.PERPLEXITY):
        return {}
    data = str(dict(methods.resolve(recipe).options)["search_data"])
    return {"objective": {"task": name, "version": tasks.get(str(name), data).version}}


def dense_key(opened: OpenModel) -> str:
    """The key of the uncompressed weights.

    Args:
        opened: The model.
    """
    return keys.key("dense", {"model": opened.source.fingerprint, "dtype": opened.dtype})
