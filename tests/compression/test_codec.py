"""Compressed matrices survive the disk bit for bit, at the size that is promised."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kick_core import compress_matrix
from kick_core.compression import block_files, codec
from kick_core.errors import KickError
from kick_core.methods import CompressedMatrix

RECIPES = (
    "awq@4bit,group=24",
    "int8_outlier@8bit,threshold=2.5",
    "sparsegpt@0.5",
    "gptq@3bit,group=24,act_order=true",
    "sparsegpt@2:4+gptq@4bit,group=24",
    "magnitude@0.5",
    "wanda@2:4",
    "rtn@8bit",
    "rtn@4bit",
    "rtn@3bit,group=24",
    "rtn@2bit,group=-1,sym=false",
)


def bits_of(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


@given(st.integers(1, 7), st.integers(1, 40), st.integers(1, 8), st.integers(0, 9))
def test_bit_streams_of_any_shape(rows, cols, bits, seed):
    codes = torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = codec.pack_bits(codes, bits)
    assert packed.shape == (rows, -(-cols * bits // 8))
    assert torch.equal(codec.unpack_bits(packed, bits, cols), codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_comes_back_is_what_was_compressed(recipe, dtype):
    torch.manual_seed(0)
    base = torch.randn(70, 72).to(dtype)
    found = compress_matrix(base, torch.randn(2, 8, 72), recipe)
    tensors = codec.encode("q", found)
    assert torch.equal(bits_of(codec.decode("q", base, tensors)), bits_of(found.weight))


def test_masks_keep_every_bit_of_what_they_keep():
    base = torch.tensor([[-0.0, float("nan"), float("inf"), -1.5, 0.0, 2.0, -0.0, 3.0, 1e-40]])
    mask = torch.tensor([[True, True, True, True, True, False, False, False, True]])
    kept = codec.apply_mask(base, codec.pack_bits(mask.to(torch.uint8), 1))
    assert torch.equal(bits_of(kept)[mask], bits_of(base)[mask])
    assert (bits_of(kept)[~mask] == 0).all()


def test_updated_values_travel_with_the_mask():
    mask = torch.rand(5, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    values = torch.where(mask, torch.randn(5, 9), torch.zeros(5, 9))
    found = CompressedMatrix(values, mask=mask, updated=True)
    tensors = codec.encode("q", found)
    assert torch.equal(codec.decode("q", torch.zeros(5, 9), tensors), values)
    assert tensors["q.values"].numel() == int(mask.sum())


def test_a_mask_takes_one_bit_a_weight():
    base = torch.randn(64, 320, generator=torch.Generator().manual_seed(0))
    tensors = codec.encode("q", compress_matrix(base, torch.ones(1, 2, 320), "magnitude@0.5"))
    assert sum(t.nbytes for t in tensors.values()) * 8 == base.numel()


def test_a_missing_matrix_is_an_error_not_a_dense_one():
    mask = torch.zeros(2, 1, dtype=torch.uint8)
    for tensors in ({"k.mask": mask}, {"q.codes4": mask, "q.zeros": mask, "q.group_size": torch.tensor([2])}):
        with pytest.raises(KickError, match="does not hold all of q"):
            codec.decode("q", torch.zeros(2, 2), tensors)


def test_a_block_file_without_copies_is_what_safetensors_writes():
    rows = torch.arange(12).reshape(3, 4)
    dtypes = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32,
              torch.float32, torch.float64, torch.int64)  # fmt: skip
    tensors = {
        f"{name}.{number}": rows.to(dtype, copy=True)
        for number, dtype in enumerate(dtypes)
        for name in ("b", "a", 'é"')
    }
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(1.5), "turned": rows.float().T}
    from safetensors.torch import save

    saved = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert b"".join(block_files.content(tensors)) == saved
