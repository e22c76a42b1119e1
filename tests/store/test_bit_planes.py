"""Nested masks as levels: every mask file comes back byte for byte, and nothing else is ever packed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from kick_core import compress_matrix
from kick_core.compression import codec
from kick_core.errors import KickError
from kick_core.store.nested_masks import bit_planes

RATIOS = tuple(f"{percent / 100:.12g}" for percent in range(5, 65, 5))


def bits_of(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


def mask_files(masks):
    """`masks`: by key and by linear, bool [out, in]."""
    return {
        key: save({f"{name}.mask": codec.pack_bits(mask, 1) for name, mask in linears.items()})
        for key, linears in masks.items()
    }


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_planes_are_compared_with_a_level(bits, size, data):
    numbers = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=size, max_size=size)))
    planes = np.stack([np.packbits(numbers >> bit & 1) for bit in range(bits)])
    for level in range(2**bits):
        expected = np.packbits(numbers > level)
        assert np.array_equal(bit_planes.above(planes, level), expected)
        assert np.array_equal(bit_planes.above(torch.from_numpy(planes), level).numpy(), expected)


@given(st.integers(1, 17), st.integers(1, 5), st.integers(1, 40), st.integers(0, 99))
def test_every_mask_comes_back(count, rows, cols, seed):
    """Also masks that are equal, keep all or keep nothing, and rows that fill no whole byte."""
    chance = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.randint(6, shape, generator=chance) for name, shape in {"q": (rows, cols), "a.b": (3, 8)}.items()
    }
    steps = torch.randint(8, (count,), generator=chance).tolist()
    masks = {f"k{n:02d}": {name: score >= step for name, score in scores.items()} for n, step in enumerate(steps)}
    files = mask_files(masks)
    packed = bit_planes.pack(files)
    assert packed is not None and packed == bit_planes.pack(dict(reversed(files.items()))), "the order does not matter"
    assert {key: bit_planes.unfold(packed, key) for key in files} == files


def test_twelve_masks_take_four_bits_a_weight(tmp_path):
    torch.manual_seed(0)
    order = torch.randperm(512 * 512).reshape(512, 512)
    files = mask_files({f"k{n}": {"q": order >= n * 10_000} for n in range(12)})
    packed = bit_planes.pack(files)
    assert len(packed) * 8 / order.numel() <= 4.05 and len(packed) < 0.35 * sum(map(len, files.values()))
    path = tmp_path / "block-0000.safetensors"
    path.write_bytes(packed)
    assert bit_planes.holds_masks(path) and sorted(bit_planes.keys(path)) == sorted(files)
    for n in range(12):
        (mask,) = bit_planes.tensors(path, f"k{n}", "pt").values()
        assert torch.equal(codec.unpack_bits(mask, 1, 512).bool(), order >= n * 10_000)
    with pytest.raises(KickError, match="does not tell which"):
        bit_planes.tensors(path, "another", "np")
    with pytest.raises(KickError, match="no file of nested masks with those of another"):
        bit_planes.unfold(packed, "another")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["magnitude", "random", "wanda", "ria"])
def test_methods_that_only_choose_are_nested_on_the_same_statistics(tmp_path, method, dtype):
    """With equal weights, zeros of both signs, and columns that fill no whole byte; weights bit for bit."""
    torch.manual_seed(0)
    base = torch.randn(37, 45).mul(2).round().div(2).to(dtype)
    base[3] = 0.0
    base[:, 7] = -0.0
    inputs = torch.randn(2, 16, 45)
    made = {ratio: compress_matrix(base, inputs, f"{method}@{ratio}") for ratio in RATIOS}
    files = {ratio: save(codec.encode("q", result)) for ratio, result in made.items()}
    packed = bit_planes.pack(files)
    assert packed is not None
    path = tmp_path / "block-0000.safetensors"
    path.write_bytes(packed)
    for ratio, result in made.items():
        tensors = bit_planes.tensors(path, ratio, "pt", mask_of="q")
        assert torch.equal(bits_of(codec.decode("q", base, tensors)), bits_of(result.weight)), ratio
        assert bit_planes.unfold(packed, ratio) == files[ratio]


def test_what_is_no_nested_mask_is_not_packed():
    kept = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
    nested = mask_files({f"k{n}": {"q": kept > n / 4} for n in range(3)})
    assert bit_planes.pack(nested) is not None
    back = (kept > 0.9).clone()
    back[kept.argmin() // 16, kept.argmin() % 16] = True  # one weight that a sparser mask has and a denser one lacks
    others = {
        "comes back": mask_files({"x": {"q": back}}),
        "another linear": mask_files({"x": {"k": kept > 0.9}}),
        "another shape": mask_files({"x": {"q": (kept > 0.9).T}}),
        "values": {"x": save(codec.encode("q", compress_matrix(kept, kept[None], "sparsegpt@0.5")))},
        "codes": {"x": save(codec.encode("q", compress_matrix(kept, kept[None], "rtn@4bit,group=8")))},
        "cut off": {"x": nested["k0"][:-1]},
        "no header": {"x": b"\xff" * 40},
        "nothing": {"x": b""},
        "a number": {"x": b"\x01" + bytes(7) + b"7"},
    }
    for what, other in others.items():
        assert bit_planes.pack(nested | other) is None, what
        assert bit_planes.pack(other) is None or what in ("comes back", "another linear", "another shape"), what


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(max_size=5), st.text(max_size=5)).map(lambda d: repr(d).encode())
)
def test_any_bytes_are_refused_in_words(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "block-0000.safetensors"
    path.write_bytes(data)
    assert bit_planes.keys(path) == [] and bit_planes.pack({"k": data}) is None
    with path.open("rb") as file:
        assert bit_planes.size(file, "k") is None
    for read in (lambda: bit_planes.unfold(data, "k"), lambda: bit_planes.tensors(path, "k", "np")):
        with pytest.raises(KickError):
            read()
