"""Models that no device holds: written as a folder block by block, spread over memory and disk, the same answers."""

import json

import pytest
import torch

from kick_core import cli
from kick_core.artifacts import export
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.export import checkpoint
from kick_core.artifacts.loaded_model import open_for
from kick_core.engine.steps import takes_slots
from kick_core.errors import BadRequest, KickError
from kick_core.models import device_map as mapped
from kick_core.models.loading import open_model
from kick_core.models.source import find
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import checkpoints, open_store, results
from kick_core.sweeps import driver
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import SweepJob
from tests.tiny import tiny_llama

TASKS = ("multiple_choice", "factoid_qa", "instructions", "perplexity")
CALIBRATION = Calibration("pocket", 4, 32)


def shop_of(store, folder, *, streamed=True):
    return ArtifactBuilder(store, open_for(ModelRef(str(folder)), store, "cpu", streamed=streamed), CALIBRATION)


def made(builder, recipe):
    for _ in builder.make(recipe):
        pass
    return recipe


def request(folder, **more):
    return SweepJob(str(folder), ("dense", "wanda@0.5", "rtn@4bit"), TASKS, 4, calibration=CALIBRATION, **more)


def swept(store, asked):
    return [progress.warning for progress in driver.run(asked, store, 1) if progress.warning]


def answers(store):
    return {card.key: (card, results.outputs(store, card.key)) for card in results.runs(store)}


def test_a_model_that_memory_does_not_hold_answers_as_one_that_it_does(store, tmp_path, tiny_folder):
    """On a CPU nothing is computed otherwise, so even the runs' keys are the same."""
    small = open_store(tmp_path / "small")
    swept(store, request(tiny_folder))
    (warning,) = swept(small, request(tiny_folder, device_map="auto", max_memory="cpu=1200KB"))
    assert warning.endswith("slower than a device that holds it all") and "disk" in warning
    whole, spread = answers(store), answers(small)
    assert len(whole) == 12 and whole.keys() == spread.keys()
    for key, (card, outputs) in whole.items():
        assert spread[key][1] == outputs
        assert card.placed == {} and set(spread[key][0].placed.values()) == {"cpu", "disk"}
    assert list((small.root / "checkpoints").iterdir()) == [] and not list(small.root.glob("offloaded-*"))


def test_no_more_is_in_memory_than_was_given(tmp_path, tiny_folder):
    source = find(ModelRef(str(tiny_folder)))
    for limit in (1_100_000, 1_250_000):
        places = mapped.places_for(source, torch.float32, mapped.memory(f"cpu={limit // 1000}KB"))
        model = mapped.open_mapped(source, torch.float32, places, tmp_path)
        there = sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
        assert 0 < there <= limit < sum(parameter.nbytes for parameter in tiny_llama().parameters())


@pytest.mark.parametrize("recipe", ["magnitude@2:4", "sparsegpt@0.5", "rtn@4bit,group=32", "sparsegpt@2:4+gptq@4bit"])
def test_a_checkpoint_is_the_model_that_wears_the_recipe(store, monkeypatch, tiny_folder, recipe):
    monkeypatch.setattr(export, "SHARD", 100_000)
    builder, worn = shop_of(store, tiny_folder), shop_of(store, tiny_folder, streamed=False)
    made(builder, parse(recipe))
    worn.apply_recipe(parse(recipe))
    with checkpoint(builder, parse(recipe)) as written:
        assert len(written.weight_files) > 2
        again = open_model(find(ModelRef(str(written.folder))), "auto", "cpu")
        for name, tensor in worn.opened.model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
        assert json.loads((written.folder / "kick_compression.json").read_text())["recipe"] == recipe
    assert not written.folder.exists()


def test_dense_needs_no_other_folder(store, tiny_folder):
    with checkpoint(shop_of(store, tiny_folder), parse("dense")) as written:
        assert written.folder == tiny_folder


def test_a_checkpoint_that_is_another_model_is_never_asked(store, monkeypatch, tiny_folder):
    builder = shop_of(store, tiny_folder)
    recipe, tensors = made(builder, parse("magnitude@0.5")), export.written_tensors

    def altered(*given):
        for name, tensor in tensors(*given):
            yield name, tensor + 0.01 if name.endswith("1.mlp.down_proj.weight") else tensor

    monkeypatch.setattr(export, "written_tensors", altered)
    with pytest.raises(KickError, match="is not the model that was written there"), checkpoint(builder, recipe):
        pass
    assert list((store.root / "checkpoints").iterdir()) == []


def test_gc_takes_checkpoints_of_the_dead_only(store, capsys):
    def collected():
        assert cli.main(["gc", "--json", "--cache", str(store.root)]) == 0
        return json.loads(capsys.readouterr().out)["removed"]

    left = store.root / "checkpoints" / "weights-abc.0123abcd"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    with checkpoints.room(store, "weights-abc") as used:
        assert collected() == ["left over weights-abc.0123abcd"]
        assert used.exists() and not left.exists()
    assert not used.exists() and collected() == []


def test_answers_end_where_the_model_says_though_its_blocks_are_on_disk(store, tmp_path):
    """`generation_config.json` names a second end token, which the config does not know."""
    streamed = open_for(ModelRef("pocket-4m"), store, "cpu", streamed=True)
    assert streamed.streamed and streamed.model.generation_config.eos_token_id == [2, 5]


@pytest.mark.parametrize("text", ["cpu", "cpu=", "cpu=much", "disk=1GB", "tpu=1GB", "cpu=-1GB", "99=1GB"])
def test_memory_that_is_not_understood(text):
    with pytest.raises(BadRequest, match="--max-memory"):
        mapped.memory(text)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"max_memory": "cpu=1GB"}, "give --device-map auto too"),
        ({"device_map": "sideways"}, "unknown device map 'sideways'"),
        ({"engine": "llama.cpp"}, "unknown engine 'llama.cpp'"),
        ({"engine": "kick,eager=true"}, "unknown engine"),
        ({"engine": "vllm", "device_map": "auto"}, "tensor_parallel_size"),
        ({"device_map": "auto", "fidelity": True}, "only the open model gives"),
    ],
)
def test_what_cannot_be_asked_so_is_refused(store, tiny_folder, more, said):
    with pytest.raises(BadRequest, match=said):
        open_sweep(request(tiny_folder, **more), store)


def test_the_machine_is_not_shared_with_other_workers(store, tiny_folder):
    job = request(tiny_folder, device_map="auto")
    assert driver.processes(job, store) == 1
    with pytest.raises(BadRequest, match="--workers 2"):
        driver.processes(job, store, 2)


def test_layers_over_several_devices_are_said_and_decoded_with_the_librarys_cache(store, monkeypatch, tiny_folder):
    """The steps differ there, and with them bits: so runs have another key."""
    places = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1, "lm_head": 0}
    assert mapped.spread(places) and mapped.spread({"a": 0, "b": "cpu"}) and not mapped.spread({"a": 0, "b": 0})
    assert mapped.device_type(places) == "cuda" and mapped.device_type({"a": "disk"}) == "cpu"
    assert not mapped.spread({"a": "cpu", "b": "disk"}) and not mapped.spread({})
    assert mapped.offloaded({"a": 0, "b": 1}) == "" and "1 of 2" in mapped.offloaded({"a": 0, "b": "cpu"})
    model = tiny_llama()
    assert takes_slots(model)
    model.hf_device_map = places
    assert not takes_slots(model)
    plain = open_sweep(request(tiny_folder), store)
    monkeypatch.setattr(mapped, "places_for", lambda *_, **__: places)
    spread = open_sweep(request(tiny_folder, device_map="auto"), store)
    one, other = plain.card(parse("dense"), "factoid_qa"), spread.card(parse("dense"), "factoid_qa")
    assert one.key != other.key and other.settings["layers"] == "over several devices"
    assert other.placed["model.layers.1"] == "1"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_answer_as_one(store, tmp_path, monkeypatch, tiny_folder):
    """The tiny model's embedding is nearly all of it, so it would never be spread by itself."""
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 1}
    places |= {"model.norm": 1, "lm_head": 0}
    other = open_store(tmp_path / "other")
    swept(store, request(tiny_folder, device="cuda"))
    monkeypatch.setattr(mapped, "places_for", lambda *_, **__: places)
    swept(other, request(tiny_folder, device="cuda", device_map="auto"))
    whole, spread = answers(store), answers(other)
    by = {(card.recipe, card.task): outputs for card, outputs in whole.values()}
    for card, outputs in spread.values():
        assert {"0", "1"} <= set(card.placed.values())
        for one, two in zip(by[card.recipe, card.task], outputs, strict=True):
            assert one.example == two.example and one.logprobs == pytest.approx(two.logprobs, abs=1e-3)
