"""Recovery: what may be asked, what moves and what stays, that merging is exact, and that a killed one goes on."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from kick_core import compress_matrix, methods
from kick_core.artifacts import training
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.compression import codec
from kick_core.compression.calibration import token_windows
from kick_core.compression.recovery import adapters
from kick_core.compression.walk import walk
from kick_core.errors import BadRequest, KickError
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, weight_artifacts
from kick_core.sweeps import cost, sweep_keys
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import ModelFacts
from tests.tiny import save_tiny, tiny_llama, token_ids
from tools.pocket import unasked

FEW = ",recover_tokens=1024"
LORA = "wanda@0.5,recover=lora" + FEW
GRID = "gptq@3bit,group=32,recover=lora" + FEW
JOINT = "sparsegpt@2:4+gptq@4bit,group=32"


def open_builder(store, folder, *, streamed=False, **calibration):
    facts = {"source": "pocket", "windows": 8, "length": 32} | calibration
    return ArtifactBuilder(
        store, open_for(ModelRef(str(folder)), store, "cpu", streamed=streamed), Calibration(**facts)
    )


def made(builder, text):
    """The reports of a make and the artifact's card."""
    reports = list(builder.make(parse(text)))
    return reports, weight_artifacts.card(builder.store, builder.key(parse(text)))


def linears(model):
    return {f"{i}.{m.name}": m.read().clone() for i, b in enumerate(decoder_blocks(model)) for m in matrices(b)}


def worn(builder, text):
    builder.opened.restore_dense()
    builder.apply_recipe(parse(text))
    return linears(builder.opened.model)


def blocks(store, key):
    return [weight_artifacts.block_path(store, key, block).read_bytes() for block in range(2)]


# --- what may be asked ---------------------------------------------------------------------------------------


def test_defaults_are_spelled_out_and_others_stay_as_they_were():
    told = methods.payload(parse("wanda@0.5,recover=lora"))["options"]
    assert told == {
        "recover": "lora", "recover_rank": 8, "recover_rate": "0.001", "recover_seed": 0, "recover_text": "calibration",
        "recover_tokens": 65_536,
    }  # fmt: skip
    assert methods.payload(parse("wanda@0.5")) == {"method": "wanda", "version": 1, "target": "0.5", "options": {}}
    assert methods.payload(parse("rtn@4bit,recover=blocks,recover_rate=1"))["options"]["recover_rate"] == "1.0"


@pytest.mark.parametrize("name", methods.names())
def test_every_method_can_be_recovered(name):
    goal = {"ratio": "0.5", "pattern": "2:4", "bits": "8bit", "budget": "4.5bpw"}[methods.card(name).targets[0]]
    for kind in ("blocks", "lora", "qlora"):
        recipe = parse(f"{name}@{goal},recover={kind}")
        how = methods.recovery(methods.resolve(recipe))
        assert how is not None and how.kind == kind and methods.unrecovered(recipe) == parse(f"{name}@{goal}")
        assert parse(recipe.text) == recipe


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("wanda@0.5,recover=lore", "Did you mean 'lora'"),
        ("wanda@0.5,recover_rank=4", "recover=KIND"),
        ("wanda@0.5,recover=blocks,recover_rank=4", "option of recover=blocks"),
        ("wanda@0.5,recover=lora,recover_tokens=10", "1024"),
        ("wanda@0.5,recover=lora,recover_rank=true", "recover_rank=True"),
        ("wanda@0.5,recover=lora,recover_rate=0", "learning rate"),
        ("wanda@0.5,recover=lora,recover_text=novel", "text to recover on"),
        ("sparsegpt@2:4,recover=lora+gptq@4bit", r"recovery comes last.*sparsegpt@2:4\+gptq@4bit,recover=lora"),
    ],
)
def test_refusals(text, named):
    with pytest.raises(BadRequest, match=named):
        methods.resolve(parse(text))


def test_what_stands_alone_cannot_be_recovered():
    with pytest.raises(BadRequest, match="takes the blocks around it"):
        compress_matrix(torch.randn(4, 8), torch.randn(1, 4, 8), "wanda@0.5,recover=blocks")
    with pytest.raises(BadRequest, match="kick compress"):
        list(walk(tiny_llama(), parse(LORA), token_ids()))


def test_the_text_tells_nothing_that_is_asked():
    asked, told = unasked.questions(), {entity.name for entity in unasked.world().entities}
    assert len(told) > 20_000 and not any(name in asked for name in told)
    assert not any(question in text for text in list(unasked.documents())[:500] for question in asked.splitlines())


# --- block by block ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["wanda@0.5", "magnitude@2:4", "gptq@3bit,group=32", "awq@4bit,group=32", JOINT])
def test_blocks_come_closer_and_their_form_stays(store, tiny_folder, text):
    builder = open_builder(store, tiny_folder)
    _, plain = made(builder, text)
    before = worn(builder, text)
    reports, card = made(builder, f"{text},recover=blocks" + FEW)
    assert all(after < first for first, after in (report.fit for report in reports))
    assert tuple(card.recovery["errors_after"]) == tuple(report.fit[1] for report in reports)
    after = worn(builder, f"{text},recover=blocks" + FEW)
    if "bit" in text:
        # the first block saw the same inputs: codes are the same and scales are not
        first, second = (load_file(weight_artifacts.block_path(store, c.key, 0)) for c in (plain, card))
        codes = [name for name in first if ".codes" in name]
        assert codes and all(torch.equal(first[name], second[name]) for name in codes)
        assert any(not torch.equal(first[name], second[name]) for name in first if name.endswith(".scales"))
    else:
        assert card.zeros == plain.zeros
        mine = [name for name in before if name.startswith("0.")]
        assert all(torch.equal(before[name] == 0, after[name] == 0) for name in mine)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_fit_that_does_not_help_is_thrown_away(store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    reports, _ = made(builder, "wanda@0.3,recover=blocks,recover_rate=1" + FEW)
    plain, _ = made(builder, "wanda@0.3")
    assert [report.fit[0] == report.fit[1] for report in reports] == [True, True]
    found = worn(builder, "wanda@0.3,recover=blocks,recover_rate=1" + FEW)
    assert all(torch.equal(found[name], weight) for name, weight in worn(builder, "wanda@0.3").items()) and plain


def test_blocks_of_a_streamed_model_and_after_dense_propagation(store, tmp_path, tiny_folder):
    text = "wanda@0.5,recover=blocks" + FEW
    whole = open_builder(store, tiny_folder)
    made(whole, text)
    streamed = open_builder(open_store(tmp_path / "streamed"), tiny_folder, streamed=True)
    made(streamed, text)
    key = whole.key(parse(text))
    assert blocks(store, key) == blocks(streamed.store, key)
    dense = open_builder(store, tiny_folder, propagate="dense")
    assert list(dense.make_all([parse(text), parse("wanda@0.5")]))[-1][0] == parse("wanda@0.5")
    assert not dense.built(parse(text)) and dense.key(parse(text)) != key
    reports, _ = made(dense, text)
    assert all(after < first for first, after in (report.fit for report in reports))


# --- low-rank updates ----------------------------------------------------------------------------------------


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="the extra `recovery` is not installed")


def test_pruned_places_stay_and_the_update_is_low_rank_between_them(peft, store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    reports, card = made(builder, LORA)
    assert [report.note[:8] for report in reports] == ["", "", *["training"] * 4]
    assert builder.built(parse("wanda@0.5")), "what a training starts from is an artifact of its own"
    before, after = worn(builder, "wanda@0.5"), worn(builder, LORA)
    for name, weight in before.items():
        assert torch.equal(weight == 0, after[name] == 0), name
        assert not torch.equal(weight, after[name]), name
    assert card.recovery["windows"] * card.recovery["length"] == 1024 and card.recovery["source"] == "pocket"
    assert all(layer.loss is None for layer in card.layers) and card.zeros == sum(layer.zeros for layer in card.layers)


def test_what_was_trained_is_what_is_worn(peft, store, tiny_folder, monkeypatch):
    """The loss that the last step would have next is the merged model's: nothing is lost by merging."""
    builder = open_builder(store, tiny_folder)
    probe, seen = token_ids(2, 16), []
    original = adapters._step

    def watching(model, adam, part):
        found = original(model, adam, part)
        with torch.no_grad():
            seen.append(model(input_ids=probe).logits)
        return found

    monkeypatch.setattr(adapters, "_step", watching)
    for text in (LORA, GRID, f"{JOINT},recover=lora" + FEW):
        made(builder, text)
        with torch.no_grad():
            merged = builder.opened.model(input_ids=probe).logits
        assert (merged - seen[-1]).abs().max() < 1e-4 * merged.std(), text


def test_codes_stay_and_factors_stand_beside_them(peft, store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    _, card = made(builder, GRID)
    plain = weight_artifacts.card(store, builder.key(parse("gptq@3bit,group=32")))
    assert card.bytes - plain.bytes > sum(8 * (layer.rows + layer.cols) * 4 for layer in card.layers)
    first, second = (load_file(weight_artifacts.block_path(store, c.key, 1)) for c in (plain, card))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name.rpartition(".")[2] for name in second.keys() - first.keys()} == {"lora_a", "lora_b"}
    joint = f"{JOINT},recover=lora" + FEW
    made(builder, joint)
    before, after = worn(builder, JOINT), worn(builder, joint)
    assert all((after[name][weight == 0] == 0).all() for name, weight in before.items())


def test_the_model_is_left_as_it_was(peft, tiny_folder, store):
    builder = open_builder(store, tiny_folder)
    model, how = builder.opened.model, methods.recovery(parse(LORA))
    before, wanted = linears(model), [p.requires_grad for p in model.parameters()]
    names = list(model.state_dict())
    steps = adapters.train(model, {}, token_ids(16, 32), how, adapters.Outcome())
    next(steps)
    steps.close()
    assert list(model.state_dict()) == names and [p.requires_grad for p in model.parameters()] == wanted
    assert all(torch.equal(before[name], weight) for name, weight in linears(model).items())


@pytest.mark.parametrize(
    ("text", "killed_after"), [(LORA, 1), (LORA, 3), (LORA, 5), (GRID, 3), ("wanda@0.5,recover=blocks" + FEW, 3)]
)
def test_stopped_anywhere_gives_the_same_bytes(peft, store, tmp_path, tiny_folder, monkeypatch, text, killed_after):
    monkeypatch.setattr(adapters, "EVERY", 2)
    straight = open_builder(open_store(tmp_path / "straight"), tiny_folder)
    everything, _ = made(straight, text)
    steps = open_builder(store, tiny_folder).make(parse(text))
    taken = [step for step, _ in zip(steps, range(killed_after), strict=False)]
    steps.close()
    rest, _ = made(open_builder(store, tiny_folder), text)
    key = straight.key(parse(text))
    assert blocks(store, key) == blocks(straight.store, key)
    if "lora" in text and len(taken) == 5:
        assert len(rest) < len(everything) - 3, "it goes on from the state that was kept"


def test_the_forecast_knows_what_recovery_adds(peft, store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    sizes = sweep_keys.sizes(builder.opened.model)
    facts = ModelFacts("m", "f", "float32", "", "cpu", "", window=64, rows=64, calibration=256, sizes=sizes)
    for text in (LORA, GRID):
        recipe = parse(text)
        _, card = made(builder, text)
        assert cost.artifact_bytes(recipe, sizes) == pytest.approx(card.bytes, rel=0.1)
        plain, more = (cost.making(one, facts) for one in (methods.unrecovered(recipe), recipe))
        assert more[0] - plain[0] == 1024
        assert more[1] - plain[1] == pytest.approx(2 * 6 * 1024 * sum(r * c for r, c in sizes.matrices))


def test_seed_text_rank_and_tokens_make_another_artifact(peft, store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    others = ["recover_seed=1", "recover_text=pocket-unasked", "recover_rank=4", "recover_rate=0.01"]
    texts = [LORA, *(f"{LORA},{other}" for other in others), "wanda@0.5,recover=lora,recover_tokens=2048", "wanda@0.5"]
    assert len({builder.key(parse(text)) for text in texts}) == len(texts)
    assert open_builder(store, tiny_folder, seed=1).key(parse(LORA)) != builder.key(parse(LORA))
    magnitude = parse("magnitude@0.5,recover=lora,recover_text=pocket-unasked" + FEW)
    assert open_builder(store, tiny_folder, seed=1).key(magnitude) == builder.key(magnitude), "it saw no calibration"


def test_four_bits_keep_zeros(store, tiny_folder):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    builder = open_builder(store, tiny_folder)
    text = "wanda@2:4,recover=qlora" + FEW
    made(builder, text)
    before, after = worn(builder, "wanda@2:4"), worn(builder, text)
    assert all(torch.equal(weight == 0, after[name] == 0) for name, weight in before.items())
    assert not torch.equal(before["0.mlp.up_proj"], after["0.mlp.up_proj"])


def test_what_cannot_be_trained_says_what_to_do(store, tiny_folder, tmp_path, monkeypatch):
    streamed = open_builder(store, tiny_folder, streamed=True)
    with pytest.raises(KickError, match="use recover=blocks"):
        list(streamed.make(parse(LORA)))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(KickError, match=r"needs peft: pip install -e \.\[recovery\]"):
        list(open_builder(store, tiny_folder).make(parse(LORA)))
    few = tmp_path / "few.npy"
    import numpy

    numpy.save(few, token_ids(12, 32).numpy())
    with pytest.raises(BadRequest, match=r"gives 384 tokens to recover on, 1,024 were asked for"):
        open_builder(store, tiny_folder, source=str(few)).key(parse(LORA))


def test_a_model_is_opened_as_a_whole_where_it_is_trained_and_fits(store, tiny_folder, monkeypatch):
    opened = open_sweep(SweepJob(str(tiny_folder), (LORA,)), store).builder.opened
    assert not opened.streamed
    assert open_sweep(SweepJob(str(tiny_folder), ("wanda@0.5,recover=blocks",)), store).builder.opened.streamed
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert open_sweep(SweepJob(str(tiny_folder), (LORA,)), store).builder.opened.streamed


def test_a_rate_that_breaks_the_model_is_told(peft, store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    text = "wanda@0.5,recover=lora,recover_rate=1" + FEW
    next(iter(builder.opened.block_matrices(0))).stored[0, 0] = 1e38
    how, outcome = methods.recovery(parse(text)), adapters.Outcome()
    with pytest.raises(KickError, match="too high"):
        list(adapters.train(builder.opened.model, {}, token_ids(32, 32), how, outcome))


def test_updates_of_half_precision_are_read_back_bit_for_bit():
    make = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 64, generator=make).bfloat16()
    inputs = torch.randn(4, 32, 64, generator=make)
    left, right = (torch.randn(*shape, generator=make).bfloat16() for shape in ((24, 3), (3, 64)))
    for text, mask in (("wanda@0.5", None), ("rtn@3bit,group=32", None), ("rtn@3bit,group=32", weight > 0)):
        result = compress_matrix(weight, inputs, text)
        keep = result.mask if mask is None else mask
        kept = codec.updated("q", result.weight, codec.encode("q", result), left, right, keep)
        update = left.double() @ right.double() * (1 if keep is None else keep)
        assert torch.equal(codec.decode("q", weight, kept), (result.weight.double() + update).bfloat16()), text


def test_a_hub_model_of_the_pocket_family_reads_the_text_it_is_told(tmp_path, store):
    folder = save_tiny(tmp_path / "model")
    builder = open_builder(store, folder)
    how = methods.recovery(parse("wanda@0.5,recover=lora,recover_text=pocket-unasked" + FEW))
    ids = token_windows(Calibration("pocket-unasked", 32, 32), builder.opened.tokenizer, 512)
    assert torch.equal(training.text(builder, how), ids)
