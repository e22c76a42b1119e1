"""One weight matrix looked at without torch: which weights a recipe kept, how large those were that it dropped.

Dense weights are read straight from the model's safetensors files, a few rows at a time from mapped files, and of
an artifact's file one matrix's mask, so that a page can show a matrix of any size at once. What lies in a file under
another name or fused with others is not guessed at: the answer is None, and the page says so.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kick_core import bits
from kick_core.errors import KickError
from kick_core.models import source
from kick_core.spec import KeepNofM, Target, Unstructured, parse
from kick_core.store import Store, weight_artifacts
from kick_core.store.tensor_header import read_header

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

MOST = 2_000_000
"""Weights looked at for a histogram; of a larger matrix every k-th row."""

_TYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "U8": np.uint8, "I32": np.int32}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: its file, first byte, type and shape."""

    path: Path
    start: int
    dtype: str
    shape: tuple[int, ...]

    def rows(self, step: int = 1) -> NDArray[Any]:
        """Every `step`-th row of the mapped tensor, in memory; bfloat16 as float32."""
        kind = np.dtype(_TYPES[self.dtype])
        if 0 in self.shape:
            return np.empty(self.shape, kind)
        found = np.array(np.memmap(self.path, kind, "r", self.start, self.shape)[::step])
        if self.dtype == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32) if kind.kind == "f" else found


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear of a decoder block as its file tells of it. `name` is that of its module inside the block."""

    block: int
    name: str
    rows: int
    cols: int
    bytes: int


def places(path: Path) -> dict[str, Place]:
    """The tensors of a safetensors file, from its header."""
    return _places(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _places(path: Path, changed: int) -> dict[str, Place]:
    try:
        with open(path, "rb") as file:
            header, start = read_header(file), file.tell()
        return {
            name: Place(path, start + fact["data_offsets"][0], fact["dtype"], tuple(fact["shape"]))
            for name, fact in header.items()
            if name != "__metadata__" and fact["dtype"] in _TYPES
        }
    except (KickError, KeyError, IndexError, TypeError) as error:
        raise KickError(f"{path} is no whole safetensors file ({error}): copy or make it again") from error


def _files(model: str) -> Iterable[Path]:
    folder = source.local(model)
    return sorted(folder.glob("*.safetensors")) if folder else ()


_BLOCK = re.compile(r"(?:^|\.)(\d+)\.(.+)\.weight$")


def linears(model: str) -> list[Linear]:
    """The linears inside the decoder blocks of a model that is on this machine; [] where it is not.

    Read from the headers of its files: matrices under a numbered block. Routers and weights that are stored
    fused are counted as the file has them, so sizes made of this are estimates until an artifact tells.
    """
    found = []
    for path in _files(model):
        for name, place in places(path).items():
            inside = _BLOCK.search(name)
            if inside and len(place.shape) == 2 and "norm" not in name and place.dtype in ("BF16", "F16", "F32"):
                size = np.dtype(_TYPES[place.dtype]).itemsize * place.shape[0] * place.shape[1]
                found.append(Linear(int(inside[1]), inside[2], place.shape[0], place.shape[1], size))
    return sorted(found, key=lambda linear: (linear.block, linear.name))


def dense(model: str, block: int, name: str, shape: tuple[int, int] | None = None, step: int = 1) -> Floats | None:
    """Rows of a dense weight [out, in], or None where the files hold no such matrix of this shape.

    A matrix that lies transposed in its file (GPT-2) is turned first.
    """
    ending = f"{block}.{name}.weight"
    for path in _files(model):
        for key, place in places(path).items():
            if key != ending and not key.endswith(f".{ending}"):
                continue
            if shape is None or place.shape == shape:
                return np.asarray(place.rows(step), dtype=np.float32)
            if place.shape == shape[::-1]:
                return np.ascontiguousarray(place.rows().T[::step])
    return None


def kept(store: Store, key: str, block: int, name: str, cols: int, step: int = 1) -> Bools | None:
    """Which weights of a matrix an artifact kept, rows of [out, in]; None where it pruned nothing."""
    try:
        packed = weight_artifacts.tensors(store, key, block, "np", mask_of=name).get(f"{name}.mask")
    except FileNotFoundError:
        return None
    if packed is None:
        return None
    return bits.unpack(packed[::step], 1, cols).astype(bool)


def smallest_dropped(weight: Floats, target: Target) -> Bools:
    """The mask by magnitude: what a ratio or a pattern keeps when only the size of a weight counts.

    On rows that were sampled the threshold is the sample's. Ties go by position, as in the method itself.
    """
    size = np.where(weight == 0, -1.0, np.abs(weight))
    match target:
        case Unstructured():
            order = np.argsort(size, axis=None, kind="stable")
            mask = np.ones(size.size, dtype=bool)
            mask[order[: target.count(size.size)]] = False
            return mask.reshape(size.shape)
        case KeepNofM(keep, out_of) if size.shape[1] % out_of == 0:
            groups = size.reshape(len(size), -1, out_of)
            order = np.argsort(groups, axis=2, kind="stable")
            mask = np.ones(groups.shape, dtype=bool)
            np.put_along_axis(mask, order[..., : out_of - keep], False, axis=2)
            return mask.reshape(size.shape)
        case _:
            raise KickError(f"{target.text} drops no weights of this matrix")


def step_for(rows: int, cols: int) -> int:
    """Every how manieth row is looked at, so that no more than `MOST` weights are."""
    return max(1, -(-rows * cols // MOST))


def density(mask: Bools, side: int = 160) -> Floats:
    """The share kept in each field of a picture of at most `side` x `side`, in [0, 1]."""
    high, wide = (min(side, length) for length in mask.shape)
    down = np.linspace(0, mask.shape[0], high + 1).astype(int)
    across = np.linspace(0, mask.shape[1], wide + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.float32), down[:-1], axis=0), across[:-1], axis=1)
    fields: Floats = (sums / np.outer(np.diff(down), np.diff(across))).astype(np.float32)
    return fields


def histogram(weight: Floats, mask: Bools | None, bins: int = 60) -> dict[str, list[float]]:
    """Counts of kept and of dropped weights by value; `x` are the middles of the bins.

    The range holds all but one weight in a thousand; `threshold` is the size below which magnitude would
    drop as many (0 where nothing is dropped).
    """
    reach = float(np.quantile(np.abs(weight), 0.999)) or 1.0
    edges = np.linspace(-reach, reach, bins + 1)
    clipped = np.clip(weight, -reach, reach)
    stays = np.ones(weight.shape, bool) if mask is None else mask
    share = 1 - float(stays.mean())
    return {
        "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
        "kept": np.histogram(clipped[stays], edges)[0].tolist(),
        "dropped": np.histogram(clipped[~stays], edges)[0].tolist(),
        "threshold": [float(np.quantile(np.abs(weight), share)) if share else 0.0],
    }


KEPT, DROPPED = (223, 232, 251), (214, 69, 61)
"""Colours of a kept and of a dropped weight."""


def picture(shares: NDArray[Any], side: int = 480) -> NDArray[np.uint8]:
    """Shares kept [rows, cols] in [0, 1] (a mask's bits are such) as pixels [high, wide, 3].

    Fields are blown up to whole pixels, about `side` in all, so that nothing is blurred.
    """
    share = shares.astype(np.float64)[..., None]
    pixels = (share * np.array(KEPT) + (1 - share) * np.array(DROPPED)).astype(np.uint8)
    times = max(1, side // max(shares.shape))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which matrix to look at: of a model, under a recipe, in an artifact (`key`) or, with no key, before it."""

    model: str
    recipe: str
    key: str
    block: int
    name: str
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Look:
    """A matrix under a recipe. `corner` is its first rows and columns weight by weight, `fields` all of it, the
    share kept in each field; both None where nothing was dropped or which is not known yet. `bars` is a
    `histogram` of the dense weights over every `step`-th row, None where the model's files do not tell.
    `foretold`: the mask is what magnitude will keep, not what an artifact kept.
    """

    corner: Bools | None
    fields: Floats | None
    bars: dict[str, list[float]] | None
    step: int
    foretold: bool

    def picture(self, whole: bool = False) -> NDArray[np.uint8]:
        """The corner weight by weight, or all of it with its shares stretched from the lowest to the highest."""
        assert self.corner is not None and self.fields is not None
        if not whole:
            return picture(self.corner)
        low, high = float(self.fields.min()), float(self.fields.max())
        return picture((self.fields - low) / ((high - low) or 1))

    def png(self) -> bytes | None:
        """The corner as a small picture file, one pixel a weight; None where there is no mask."""
        if self.corner is None:
            return None
        file = io.BytesIO()
        Image.fromarray(picture(self.corner, 1)).save(file, format="PNG", optimize=True)
        return file.getvalue()


CORNER = 64


def look(store: Store, asked: Asked) -> Look | None:
    """What can be seen of a matrix; None where neither the artifact nor the model's files show it."""
    step = step_for(asked.rows, asked.cols)
    weight = dense(asked.model, asked.block, asked.name, (asked.rows, asked.cols), step)
    mask = kept(store, asked.key, asked.block, asked.name, asked.cols) if asked.key else None
    target = parse(asked.recipe).target
    foretold = not asked.key and asked.recipe.startswith("magnitude@") and weight is not None
    if foretold and weight is not None and target is not None:
        mask = smallest_dropped(weight, target)
    if mask is None and weight is None:
        return None
    sampled = mask if mask is None or foretold else mask[::step]
    bars = None if weight is None else histogram(weight, sampled)
    corner = None if mask is None else mask[:CORNER, :CORNER]
    return Look(corner, None if mask is None else density(mask), bars, step, foretold)
