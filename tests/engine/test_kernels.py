"""Decoding by our kernels against the families' own operations; without a GPU in Triton's interpreter."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch

from kick_core import engine
from kick_core.engine import fused
from kick_core.engine.pages import PAGE
from kick_core.engine.steps import SlotSteps, takes_slots
from tests.engine.engine_cases import PLAN, ids, merged, options, questions
from tests.models.test_families import make

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
if not GPU:  # the interpreter takes a number out of an array of one element as only NumPy before 2.4 does
    from triton.runtime import interpreter

    _usual = interpreter._patch_lang_tensor

    def _patched(tensor, scope):
        _usual(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patched
BY_KERNELS = dataclasses.replace(PLAN, kernels=True)


def made(family):
    model = make(family).to(DEVICE)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4.0)
        else:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, device=DEVICE))  # norms that are not all one
    return model


def told(name, plain, used):
    return lambda *args: used.add(name) or plain(*args)


def texts(model, prompts, plan):
    return merged(
        engine.generate(model, prompts, new_tokens=3, ends=frozenset(), stops=lambda _: False, plan=plan, filler=0)
    )


@pytest.mark.parametrize(
    "family, rows", [("Llama", 1), *((f, 2) for f in ("Llama", "Qwen3", "Phi3", "GPT2", "Mixtral"))]
)
def test_the_text_is_that_of_the_families_own_operations(family, rows, monkeypatch):
    monkeypatch.setattr("kick_core.engine.generation.rows_matter", lambda _: True)
    model, prompts = made(family), [ids(3 + 7 * n % 23, n) for n in range(rows)]
    plan = dataclasses.replace(BY_KERNELS, rows=rows)
    wanted = texts(model, prompts, dataclasses.replace(plan, kernels=False))
    used = set()
    from kick_core.engine import kernels as _triton

    for name in ("attend", "put", "normed", "turned", "gated", "one_row", "one_row_gated"):
        monkeypatch.setattr(_triton, name, told(name, getattr(_triton, name), used))
    assert texts(model, prompts, plan) == wanted
    assert {"attend", "put"} <= used
    if family == "Qwen3":
        paged = dataclasses.replace(plan, paged=True, notes=[])
        assert texts(model, prompts, paged) == wanted and paged.notes == []
    expected = {
        "Llama": {"normed", "turned", *(["one_row", "one_row_gated"] if rows == 1 else ["gated"])},
        "Qwen3": {"normed", "turned", *(["one_row", "one_row_gated"] if rows == 1 else ["gated"])},
        "Phi3": {"normed"},
        "GPT2": set(),
    }
    assert expected.get(family, set()) <= used
    if family == "GPT2":  # layer norms, learned positions, no gate
        assert not used & {"normed", "turned", "gated", "one_row_gated"}


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_scores_are_those_of_the_families_own_operations(family):
    model, prompts, asked = made(family), questions()[:6], options(3)[:6]
    plan = engine.BatchPolicy(512, 4, 16, 16, 32, 96, 8)
    wanted = merged(engine.score_options(model, prompts, asked, plan=plan, filler=0))
    by_kernels = dataclasses.replace(plan, kernels=True)
    found = merged(engine.score_options(model, prompts, asked, plan=by_kernels, filler=0))
    for mine, other in zip(found, wanted, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert mine.argmax == other.argmax and mine.rank == other.rank
    assert engine.plan_hash(model, prompts, asked, plan) != engine.plan_hash(model, prompts, asked, by_kernels)


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_warming_up_uses_every_kernel_that_texts_use(family, monkeypatch):
    """With the sizes of the model's own config: a call that does not fit a kernel would be passed over in silence."""
    from kick_core.engine import kernels, paged_attention, warmup

    used = set()
    for module, names in (
        (kernels, ("normed", "turned", "gated")),
        (paged_attention, ("attend", "put", "put_prompts")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, told(name, getattr(module, name), used))
    warmup._use_kernels(made(family).config, torch.float32, DEVICE)
    assert used == {"normed", "turned", "gated", "attend", "put", "put_prompts"}


def test_a_stand_in_that_gives_something_else_is_not_taken():
    """Gemma's norm multiplies by one more than its weight, and its gate is no SiLU."""
    gemma, llama = made("Gemma2"), made("Llama")
    names = {type(module).__name__ for module, _ in fused.FusedPatches(gemma, 2).forwards}
    assert not names & {"Gemma2RMSNorm", "Gemma2MLP"}
    names = {type(module).__name__ for module, _ in fused.FusedPatches(llama, 2).forwards}
    assert names == {"LlamaRMSNorm", "LlamaMLP"}


def test_the_model_is_left_as_it_was():
    model = made("Llama")
    space = vars(__import__(type(model).__module__, fromlist=["x"]))
    before = space["apply_rotary_pos_emb"]
    stand_ins = fused.FusedPatches(model, 1)
    with pytest.raises(RuntimeError, match="stop"), stand_ins.in_place():
        assert space["apply_rotary_pos_emb"] is not before
        assert any("forward" in vars(module) for module in model.modules())
        raise RuntimeError("stop")
    assert space["apply_rotary_pos_emb"] is before
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("heads, pairs, width, columns", [(4, 4, 24, 100), (8, 2, 16, 40), (4, 1, 32, 300)])
def test_attention_over_a_cache(heads, pairs, width, columns):
    """Rows with other lengths, a hole in the middle, columns in one part and in several."""
    from kick_core.engine import kernels as _triton

    draw = torch.Generator().manual_seed(0)
    query = torch.randn(3, 1, heads, width, generator=draw).transpose(1, 2).to(DEVICE)
    keys, values = (torch.randn(3, pairs, columns, width, generator=draw).to(DEVICE) for _ in range(2))
    mask = torch.zeros(3, 1, 1, columns, device=DEVICE)
    for row in range(3):
        mask[row, ..., columns // (row + 1) :] = torch.finfo(torch.float32).min
        mask[row, ..., 3] = torch.finfo(torch.float32).min
    keys[:, :, columns - 1], values[1:, :, columns - 1] = float("nan"), float("nan")  # nothing that is hidden is read
    mask[0, ..., columns - 1] = torch.finfo(torch.float32).min
    values[0, :, columns - 1] = 0
    found = _triton.attend(query, keys, values, mask, 0.3)
    clean = [torch.nan_to_num(t) for t in (keys, values)]
    clean = [t.repeat_interleave(heads // pairs, 1) for t in clean]
    wanted = torch.nn.functional.scaled_dot_product_attention(query, *clean, attn_mask=mask, scale=0.3)
    assert torch.allclose(found, wanted.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize(
    "heads, pairs, width, window", [(4, 4, 24, 0), (8, 2, 16, 100), (4, 1, 32, 700), (4, 4, 16, 300)]
)
def test_attention_over_pages(heads, pairs, width, window):
    """Rows of no text, of one page, of several and of several parts; what no text has written is not read."""
    from kick_core.engine import paged_attention
    from tests.engine import test_pages

    draw = torch.Generator().manual_seed(0)
    where = torch.tensor([0, 5, 127, 128, 1500], device=DEVICE)
    query = torch.randn(5, 1, heads, width, generator=draw).transpose(1, 2).to(DEVICE)
    keys, values = (torch.randn(40, pairs, PAGE, width, generator=draw).to(DEVICE) for _ in range(2))
    table = torch.zeros(5, 32, dtype=torch.int32, device=DEVICE)
    free = iter(torch.randperm(39, generator=draw).add(1).tolist())
    for row in range(1, 5):
        for n in range(int(where[row]) // PAGE + 1):
            table[row, n] = next(free)
    new = [torch.randn(5, pairs, 1, width, generator=draw).to(DEVICE) for _ in range(2)]
    plain = [t.clone() for t in (keys, values)]
    paged_attention.put(*new, keys, values, table, where)
    test_pages.put(*new, *plain, table, where)
    assert torch.equal(keys, plain[0]) and torch.equal(values, plain[1])
    for row in range(1, 5):
        last = int(table[row, int(where[row]) // PAGE])
        for t in (keys, values):
            t[last, :, int(where[row]) % PAGE + 1 :] = float("nan")
    found = paged_attention.attend(query, keys, values, table, where, 0.3, window)
    wanted = test_pages.attend(query, keys, values, table, where, 0.3, window)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("width, length", [(24, 130), (16, 64), (32, 7)])
def test_prompts_are_put_into_pages(width, length):
    """Laid out as a projection gives them; one row has pages for its own tokens alone, one has more than the table."""
    from kick_core.engine import paged_attention
    from tests.engine import test_pages

    draw = torch.Generator().manual_seed(0)
    new = [torch.randn(3, length, 2, width, generator=draw).to(DEVICE).transpose(1, 2) for _ in range(2)]
    keys, values = (torch.zeros(9, 2, PAGE, width, device=DEVICE) for _ in range(2))
    plain = [t.clone() for t in (keys, values)]
    table = torch.tensor([[0, 0], [3, 5], [7, 0], [4, 1]], dtype=torch.int32, device=DEVICE)
    places = torch.tensor([3, 1, 2], device=DEVICE)
    paged_attention.put_prompts(*new, keys, values, table, places)
    test_pages.put_prompts(*new, *plain, table, places)
    assert torch.equal(keys, plain[0]) and torch.equal(values, plain[1]) and not keys[0].any()


@torch.inference_mode()
@pytest.mark.parametrize("failure", [RuntimeError("operation not permitted when stream is capturing"), None])
def test_where_no_graph_can_be_recorded_steps_are_taken_all_the_same(failure, monkeypatch):
    class Graph:
        """Records the work as such, for there may be no device."""

        def replay(self):
            self.work()

    @contextmanager
    def recording(graph):
        if failure:
            raise failure
        kept = {name: value.clone() for name, value in vars(steps).items() if isinstance(value, torch.Tensor)}
        yield
        for name, value in kept.items():
            getattr(steps, name).copy_(value)
        graph.work = steps._step

    plan = dataclasses.replace(PLAN, notes=[])
    model, prompts = make("Llama"), [ids(5, 1), ids(9, 2)]
    assert takes_slots(model)
    steps = SlotSteps(model, plan, 0, None, whole=True)
    steps.begin(prompts, 2, 32, 8, None)
    wanted = [steps.next() for _ in range(8)]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    for _ in range(2):
        steps.begin(prompts, 2, 32, 8, None)
        steps.on_cuda, found = True, []
        for _ in range(8):
            steps._advance()
            found.append(steps.tokens.tolist())
        steps.on_cuda = False
        assert found == wanted
    assert (steps.graph is None) == bool(failure)
    assert bool(plan.notes) == bool(failure)


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_windows_are_those_of_the_families_own_operations(family):
    model, windows = made(family), torch.tensor([ids(24, 1), ids(24, 2)])
    plan = dataclasses.replace(BY_KERNELS, windows=True, notes=[])
    (wanted,) = engine.window_logprobs(model, windows, rows=2)
    (found,) = engine.window_logprobs(model, windows, rows=2, plan=plan)
    assert found[1] == pytest.approx(wanted[1], abs=1e-3) and found != wanted
    assert plan.notes == []
