"""The GPU kernels against their eager twins; without a GPU in Triton's interpreter. Selection against a full sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kick_core import compress_matrix, methods
from kick_core.compression import activations, block, codec
from kick_core.compression import walk as compression
from kick_core.methods import select, solve, sweep
from kick_core.models import bit_tensors
from kick_core.spec import parse
from tests.methods.test_methods import problem
from tests.tiny import tiny_llama, token_ids

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


@pytest.fixture(scope="module")
def triton_kernels():
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    from kick_core.methods import kernels

    return kernels


plain_addmm = torch.Tensor.addmm_


def as_the_eager_loop(to, left, right, alpha=1):
    """The order of sums in a product depends on how its factors lie in memory: let them lie as in `_block`."""
    return plain_addmm(to, left, right) if alpha == 1 else to.sub_(left.T.contiguous().T @ right.T.contiguous().T)


@pytest.fixture
def fused(triton_kernels, monkeypatch):
    """Compress by the kernels; on a CPU in the interpreter, which rounds every product before it is added."""

    def compress(weight, inputs, recipe):
        with monkeypatch.context() as patch:
            if not GPU:
                patch.setattr(sweep, "kernels", lambda device: triton_kernels)
                patch.setattr(torch.Tensor, "addmm_", as_the_eager_loop)
            return compress_matrix(weight.to(DEVICE), inputs.to(DEVICE), recipe)

    return compress


@pytest.fixture
def eager(monkeypatch):
    def compress(weight, inputs, recipe):
        with monkeypatch.context() as patch:
            patch.setattr(sweep, "kernels", lambda device: None)
            if not GPU:
                patch.setattr(torch.Tensor, "addr_", lambda to, u, e, alpha: to.sub_(torch.outer(u, e)))
            return compress_matrix(weight.to(DEVICE), inputs.to(DEVICE), recipe)

    return compress


SWEEPS = (
    "sparsegpt@0.5",
    "sparsegpt@0.3,block=48",
    "sparsegpt@1:2",
    "sparsegpt@2:4",
    "sparsegpt@4:8",
    "gptq@4bit",
    "gptq@3bit,group=32,sym=false",
    "gptq@2bit,group=-1",
    "gptq@8bit,group=150",
    "gptq@3bit,group=32,mse=true",
    "gptq@4bit,group=24,act_order=true",
    "gptq@4bit,group=32,act_order=true,static_groups=true",
    "sparsegpt@2:4+gptq@4bit,group=32",
    "sparsegpt@0.5+gptq@3bit,group=32",
    "wanda@2:4+gptq@4bit,group=32",
)


@pytest.mark.parametrize("recipe", SWEEPS)
def test_the_kernel_gives_the_bits_of_the_eager_loop(fused, eager, recipe):
    weight, inputs = problem(rows=32, cols=160, tokens=100)  # a whole block and a shorter one
    inputs[..., 7] = 0
    weight[3, :9] = 0
    weight[5, 11] = -0.0
    found, wanted = fused(weight, inputs, recipe), eager(weight, inputs, recipe)
    for name in ("weight", "mask", "codes", "scales", "zeros"):
        mine, other = getattr(found, name), getattr(wanted, name)
        assert (mine is None) == (other is None), name
        if mine is None:
            continue
        if GPU:  # the products between blocks lie differently in memory there
            assert (mine.float() - other.float()).abs().gt(1e-5).float().mean() < 1e-3, name
        else:
            assert torch.equal(mine, other), name


@pytest.mark.parametrize("size", [24, 128])
def test_a_stack_gives_the_bits_of_every_matrix_by_itself(triton_kernels, monkeypatch, size):
    """Recipes of one matrix, and matrices of one shape, in one sweep."""
    monkeypatch.setattr(sweep, "kernels", lambda device: triton_kernels)
    one, inputs = problem(rows=8, cols=64, tokens=100)
    other = one.roll(3, 0) * 1.5
    other[2, :30] = 0
    tally = activations.StatsAccumulator(64, "gram", DEVICE)
    tally.add(inputs.to(DEVICE))
    stats = tally.stats()
    texts = ["0.5", "2:4", "0.05", "4:8", "0", "2:4", "0.9"]
    recipes = [methods.resolve(parse(f"sparsegpt@{text},block={size}")) for text in texts]
    weights = [(one if n % 2 else other).to(DEVICE) for n in range(len(texts))]
    assert all(methods.stacks(recipe, DEVICE) for recipe in recipes)
    made = methods.apply_stack(recipes, weights, stats)
    for recipe, weight, result in zip(recipes, weights, made, strict=True):
        alone = methods.apply(recipe, weight, stats)
        assert torch.equal(result.weight.view(torch.int32), alone.weight.view(torch.int32)), recipe.text
        assert torch.equal(result.mask, alone.mask), recipe.text


def test_recipes_of_one_pass_are_those_made_one_by_one(triton_kernels, monkeypatch):
    """Stacked by the kernels, of as many recipes at a time as there is room for, or failed and made by themselves."""
    monkeypatch.setattr(sweep, "kernels", lambda device: triton_kernels)
    recipes = [parse(text) for text in ("sparsegpt@0.5", "wanda@0.5", "sparsegpt@4:8")]
    ids = token_ids(2, 32, vocabulary=64)

    def model():
        return tiny_llama(hidden=16, layers=1, vocabulary=64).to(DEVICE)

    def many():
        found = {recipe.text: walked for recipe, walked in compression.walk_many(model(), recipes, ids.to(DEVICE))}
        assert list(found) == [recipe.text for recipe in recipes]
        return found

    stacks = []
    plain = methods.apply_stack
    monkeypatch.setattr(methods, "apply_stack", lambda *given: stacks.append(len(given[0])) or plain(*given))
    together = many()
    assert stacks == [2, 4, 2, 4, 2]  # q; k, v; o; gate, up; down: two recipes each
    monkeypatch.setattr(activations, "room", lambda device: 1)
    one_at_a_time = many()
    monkeypatch.setattr(activations, "room", lambda device: float("inf"))
    monkeypatch.setattr(methods, "apply_stack", fails)
    by_themselves = many()
    for text, walked in together.items():
        (alone,) = compression.walk(model(), parse(text), ids.to(DEVICE), propagate="dense")
        for other in (one_at_a_time[text], by_themselves[text], alone):
            for name, result in walked.results.items():
                assert torch.equal(result.weight, other.results[name].weight), (text, name)
            assert walked.report.loss == other.report.loss
            if text != "wanda@0.5":  # by itself it makes no Gram matrix to tell losses from
                assert [x.loss for x in walked.report.layers] == [x.loss for x in other.report.layers]


def fails(*given):
    raise torch.OutOfMemoryError("no room")


def test_the_factor_of_a_gpu_is_that_of_a_cpu():
    """One Cholesky of the reversed matrix and a triangular inverse, against two Choleskys and an inverse."""
    _, inputs = problem()
    rows = inputs.reshape(-1, 64)
    gram = rows.T @ rows
    diagonal = gram.diagonal().clone()
    for dtype in (torch.float32, torch.float64):
        found = solve._turned_factor(gram, diagonal, 2.5, dtype)
        wanted = solve._factor(gram, diagonal, 2.5, dtype)
        assert found.is_contiguous()
        assert torch.equal(found, found.triu())
        assert (found - wanted).norm() <= (1e-3 if dtype == torch.float32 else 1e-9) * wanted.norm()
    assert solve._turned_factor(-gram, -diagonal, 0.0, torch.float32) is None


def by_sorting(scores, count):
    """What `drop_lowest` must give: the first `count` in a stable order."""
    order = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(-1, order, True)


def tied(rows, n, levels, seed):
    """Scores as methods make them: not negative but for existing zeros (-1), with ties where `levels` are few."""
    drawn = torch.rand(rows, n, generator=torch.Generator().manual_seed(seed))
    scores = (drawn * levels).floor() if levels else drawn
    return torch.where(drawn < 0.1, -1.0, scores)


@given(st.integers(1, 4), st.integers(1, 70), st.integers(0, 6), st.floats(0, 1), st.integers(0, 99))
def test_selection_is_a_stable_sort(rows, n, levels, share, seed):
    scores, count = tied(rows, n, levels, seed), int(n * share)
    assert torch.equal(select.drop_lowest(scores, count), by_sorting(scores, count))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 300), st.integers(0, 6), st.floats(0, 1), st.integers(0, 99))
def test_rows_are_ranked_by_the_kernel_as_by_sorting(triton_kernels, rows, n, levels, share, seed):
    scores, count = tied(rows, n, levels, seed).to(DEVICE), max(1, int(n * share))
    assert torch.equal(triton_kernels.drop_lowest(scores, count), by_sorting(scores, count))


@pytest.mark.parametrize("levels", [0, 1, 3, 500])
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.5, 0.9, 1])
def test_long_rows_are_counted_by_the_kernels_as_by_sorting(triton_kernels, monkeypatch, levels, share):
    monkeypatch.setattr(triton_kernels, "ROW", 64)
    monkeypatch.setattr(triton_kernels, "CHUNK", 128)
    scores = tied(2, 1000, levels, seed=levels).to(DEVICE)
    count = max(1, int(1000 * share))
    assert torch.equal(triton_kernels.drop_lowest(scores, count), by_sorting(scores, count))


def test_one_factor_serves_all_that_share_inputs(monkeypatch):
    weight, inputs = problem()
    made = []
    plain = solve.inverse_factor
    monkeypatch.setattr(solve, "inverse_factor", lambda gram, damp: made.append(damp) or plain(gram, damp))
    tally = activations.StatsAccumulator(64, "gram", weight.device)
    tally.add(inputs)
    stats = tally.stats()
    recipes = ("sparsegpt@0.5", "sparsegpt@2:4", "gptq@4bit", "sparsegpt@0.5,damp=0.02", "gptq@4bit,act_order=true")
    for text in recipes:
        recipe = methods.resolve(parse(text))
        alone = compress_matrix(weight, inputs.reshape(1, -1, 64), text)
        assert torch.equal(methods.apply(recipe, weight, stats).weight, alone.weight), text
    assert len(stats.factors) == 3
    assert len(made) == 3 + len(recipes)  # each one alone makes its own


def test_the_factor_leaves_the_gram_matrix_alone():
    _, inputs = problem()
    rows = inputs.reshape(-1, 64)
    gram = rows.T @ rows
    before = gram.clone()
    solve.inverse_factor(gram, 0.01)
    assert torch.equal(gram, before)


def test_losses_are_what_the_outputs_say():
    weight, inputs = problem()
    rows = inputs.reshape(-1, 64)
    energy = block.output_energy(weight.to(DEVICE), (rows.T @ rows).to(DEVICE))
    assert float(energy) == pytest.approx(float((rows.double() @ weight.double().T).square().sum()), rel=1e-4)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 8), st.integers(0, 9))
def test_bits_are_packed_alike_on_every_device(rows, cols, bits, seed):
    codes = torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = bit_tensors._pack_on_device(codes.to(DEVICE), bits).cpu()
    assert torch.equal(packed, codec.pack_bits(codes, bits))
    assert torch.equal(bit_tensors._unpack_on_device(packed.to(DEVICE), bits, cols).cpu(), codes)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("recipe", ["magnitude@0.5", "sparsegpt@2:4", "gptq@4bit,group=32", "int8_outlier@8bit"])
def test_weights_are_put_into_place(recipe, turned):
    base = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    base = base.T if turned else base  # GPT-2 keeps its matrices turned
    inputs = torch.randn(2, 60, base.shape[1], generator=torch.Generator().manual_seed(1))
    found = compress_matrix(base, inputs, recipe)
    place = torch.full((96, 64), 7.0, dtype=torch.bfloat16)
    out = place.T if turned else place
    codec.decode_into(out, "q", base, codec.encode("q", found))
    assert torch.equal(out, found.weight)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_gram_matrices_of_half_precision_are_nearly_exact():
    rows = torch.randn(8192, 512, generator=torch.Generator().manual_seed(0)).bfloat16().to(DEVICE)
    tally = activations.StatsAccumulator(512, "gram", DEVICE)
    tally.add(rows)
    exact = rows.double().T @ rows.double()
    # sums in the tensor cores are cut off, not rounded: 1e-5 of them after 8,192 tokens, where inputs have 8 bits
    assert (tally.gram.double() - exact).norm() / exact.norm() < 2e-5
    assert torch.allclose(tally.sq_norms.double(), exact.diagonal(), rtol=1e-5)
    assert torch.equal(tally.peaks, rows.abs().amax(0).float())
