"""On a CUDA device: as on the CPU, the same bits twice, and what running out of memory does.

python -m pytest -m gpu           (skipped where torch sees no device)
"""

import pytest
import torch

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.compression import activations
from kick_core.compression import walk as walking
from kick_core.compression.walk import walk
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, weight_artifacts
from tests.tiny import save_tiny, tiny_llama, token_ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
RECIPES = ["magnitude@0.5", "wanda@0.5", "wanda@2:4", "sparsegpt@0.5", "sparsegpt@4:8", "gptq@4bit,group=32"]


def walked(recipe, device, *, dtype=torch.float32, **how):
    model = tiny_llama().to(dtype).to(device)
    reports = [w.report for w in walk(model, parse(recipe), token_ids(20), **how)]
    return model, reports


@pytest.mark.parametrize("recipe", RECIPES)
def test_as_on_the_cpu(recipe):
    wanted, on_cpu = walked(recipe, "cpu")
    found, reports = walked(recipe, "cuda")
    assert [[x.zeros for x in r.layers] for r in reports if "bit" not in recipe] == [
        [x.zeros for x in r.layers] for r in on_cpu if "bit" not in recipe
    ]
    for report, other in zip(reports, on_cpu, strict=True):
        assert report.loss == pytest.approx(other.loss, rel=2e-2) if other.loss else report.loss == other.loss
    for name, weight in wanted.named_parameters():
        close = (found.get_parameter(name).cpu() - weight).abs() <= 1e-3
        assert close.float().mean() > 0.99, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_bits_twice(recipe, dtype):
    one, _ = walked(recipe, "cuda", dtype=dtype)
    other, _ = walked(recipe, "cuda", dtype=dtype)
    for name, weight in one.named_parameters():
        assert torch.equal(weight, other.get_parameter(name)), name


def test_weights_arrive_on_the_card_as_the_files_hold_them(tmp_path):
    folder = save_tiny(tmp_path / "model", dtype=torch.bfloat16)
    on_cpu, on_card = (open_for(ModelRef(str(folder)), None, device).model for device in ("cpu", "cuda"))
    assert {p.device.type for p in on_card.parameters()} == {"cuda"}
    tensors = dict(on_card.state_dict(), **dict(on_card.named_buffers()))
    for name, tensor in {**on_cpu.state_dict(), **dict(on_cpu.named_buffers())}.items():
        assert torch.equal(tensor, tensors[name].cpu()), name


def test_a_block_is_fitted_to_outputs_that_have_no_room_on_the_card(monkeypatch):
    through = walking._through
    monkeypatch.setattr(walking, "_through", lambda *args: through(*args).cpu())
    _, reports = walked("wanda@0.5,recover=blocks", "cuda")
    assert all(report.fit[1] <= report.fit[0] for report in reports)


@pytest.mark.parametrize("recipe", ["wanda@0.5", "sparsegpt@0.5", "gptq@4bit,group=32"])
@pytest.mark.parametrize("streamed", [False, True])
def test_stopped_and_resumed_through_finished_blocks(tmp_path, recipe, streamed):
    folder, made = save_tiny(tmp_path / "model", dtype=torch.bfloat16), []
    for name in ("straight", "stopped"):
        store = open_store(tmp_path / name)

        def builder(store=store):
            opened = open_for(ModelRef(str(folder)), store, "cuda", streamed=streamed)
            return ArtifactBuilder(store, opened, Calibration("pocket", 10, 32), inputs_share=0.0)

        if name == "stopped":
            steps = builder().make(parse(recipe))
            next(steps)
            steps.close()
        whole = builder()
        assert [report.resumed for report in whole.make(parse(recipe))] == [name == "stopped", False]
        key = whole.key(parse(recipe))
        made.append([weight_artifacts.block_path(store, key, block).read_bytes() for block in range(2)])
    assert made[0] == made[1]


def test_a_digest_is_the_same_wherever_activations_lie():
    hidden = torch.randn(5, 33, 64).bfloat16()
    on_cpu = activations.digest([hidden], hidden.device)
    there = torch.device("cuda")
    assert activations.digest([hidden.cuda()], there) == activations.digest([hidden], there) == on_cpu


def test_activations_in_host_memory_change_nothing(monkeypatch):
    on_device, _ = walked("sparsegpt@2:4", "cuda")
    monkeypatch.setattr(activations, "_SHARE", 0.0)
    from_host, _ = walked("sparsegpt@2:4", "cuda")
    for name, weight in on_device.named_parameters():
        assert torch.equal(weight, from_host.get_parameter(name)), name


def test_a_device_that_is_too_small_goes_on_and_says_so():
    """Beside the weights there is room for a few windows of a forward, not for the usual eight."""
    model, ids = tiny_llama(hidden=512, layers=2).to(torch.bfloat16).cuda(), token_ids(64, 512)
    before = {name: p.detach().clone().cpu() for name, p in model.named_parameters()}
    torch.cuda.reset_peak_memory_stats()
    list(walk(model, parse("wanda@0.5"), ids))
    still, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_reserved()
    reports = []
    for share in (number / 20 for number in range(19, 4, -1)):  # where batches do not fit depends on the library
        model.load_state_dict(before, strict=False)
        torch.cuda.empty_cache()
        room = still + share * (peak - still)
        torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
        try:
            reports = [w.report for w in walk(model, parse("wanda@0.5"), ids)]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        if reports[0].note:
            break
    assert "out of memory" in reports[0].note
    assert all(layer.zeros == layer.rows * (layer.cols // 2) for r in reports for layer in r.layers)


@pytest.mark.parametrize("recipe", ["wanda@0.5", "sparsegpt@2:4"])
def test_a_model_on_disk_is_compressed_to_the_same_bits(tmp_path, recipe):
    """Its blocks come one at a time, the next one sent ahead while this one is worked on."""
    folder = save_tiny(tmp_path / "model", dtype=torch.bfloat16)
    whole = open_for(ModelRef(str(folder)), None, "cuda")
    streamed = open_for(ModelRef(str(folder)), None, "cuda", streamed=True)
    assert streamed.streamed and not whole.streamed
    wanted = [done.results for done in walk(whole.model, parse(recipe), token_ids(20))]
    found = [done.results for done in walk(streamed.model, parse(recipe), token_ids(20), hold=streamed.hold)]
    for one, other in zip(wanted, found, strict=True):
        for name, result in one.items():
            assert torch.equal(result.weight, other[name].weight), name
