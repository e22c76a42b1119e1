"""The block walk: what it touches, what it leaves, what the next block sees, and resuming."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import kick_core
from kick_core import methods
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.export import export
from kick_core.artifacts.loaded_model import open_for
from kick_core.compression import activations
from kick_core.compression.resume import Resume
from kick_core.compression.walk import walk
from kick_core.errors import BadRequest, KickError
from kick_core.models.blocks import decoder_blocks, first_inputs, matrices, run_block, watched_inputs
from kick_core.records import BlockReport, Card
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import weight_artifacts
from tests.golden import GOLDEN
from tests.tiny import save_tiny, tiny_llama, token_ids


def finish(steps):
    return list(steps)


def linears(model):
    return {f"{i}.{m.name}": m.read().clone() for i, b in enumerate(decoder_blocks(model)) for m in matrices(b)}


@pytest.mark.parametrize("recipe", ["magnitude@0.5", "wanda@2:4", "wanda@0.3", "rtn@4bit,group=32"])
def test_every_linear_inside_blocks_and_nothing_else(recipe):
    model = tiny_llama()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    *reports, card = finish(kick_core.compress(model, recipe, token_ids()))
    assert [r.block for r in reports] == [0, 1] and all(isinstance(r, BlockReport) for r in reports)
    assert isinstance(card, Card) and len(card.layers) == 14
    target = parse(recipe).target
    for name, parameter in model.named_parameters():
        if "proj" not in name:
            assert torch.equal(parameter, before[name]), name
        elif "bit" not in recipe:
            zeros = int((parameter == 0).sum())
            n, cols = parameter.numel(), parameter.shape[1]
            wanted = n // 2 if ":" in recipe else target.count(n)
            assert zeros in {wanted, len(parameter) * target.count(cols) if ":" not in recipe else wanted}, name
    assert model.lm_head.weight is model.model.embed_tokens.weight  # tied stays tied
    assert card.zeros == sum(layer.zeros for layer in card.layers)


def test_propagated_activations_equal_a_straight_forward():
    model, ids = tiny_llama(), token_ids(9)
    seen = {}
    for walked in walk(model, parse("wanda@0.5"), ids):
        seen[walked.report.block] = None if walked.hidden is None else walked.hidden.clone()
    straight = model(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert torch.equal(seen[0], straight[1])
    assert seen[1] is None  # nothing comes behind the last block


def test_dense_propagation_shows_every_block_the_dense_model():
    model, ids = tiny_llama(), token_ids(9)
    dense = model(ids, output_hidden_states=True, use_cache=False).hidden_states
    for walked in walk(model, parse("wanda@0.5"), ids, propagate="dense"):
        if walked.report.block == 0:
            assert torch.equal(walked.hidden, dense[1])


def test_linears_with_one_input_are_found_by_looking():
    model, ids = tiny_llama(), token_ids(2)
    hidden, calls = first_inputs(model, ids)
    found = []
    block = decoder_blocks(model)[0]
    with watched_inputs(block, lambda names, _: found.append(names)):
        run_block(block, hidden, calls[0])
    assert found == [
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    ]


def test_published_results_through_the_whole_model():
    """Against the published references' sequential procedure, block after block."""
    folder = GOLDEN / "tiny-llama"
    golden = load_file(folder / "pipeline.safetensors")
    told = json.loads((folder / "pipeline.json").read_text())["cases"]
    for goal in ("0.5", "2:4"):
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        finish(kick_core.compress(model, f"wanda@{goal}", golden["calibration_ids"].long()))
        wanted = {n.split("/")[1]: t for n, t in golden.items() if n.startswith(f"wanda.{goal}/")}
        assert len(wanted) == 21
        for name, tensor in wanted.items():
            agree = ((model.get_parameter(name) != 0) == tensor).float().mean()
            assert agree > 0.999, (goal, name)
        with torch.no_grad():
            ids = golden["eval_ids"].long()
            perplexity = float(model(ids, labels=ids).loss.exp())
        assert perplexity == pytest.approx(told[f"wanda.{goal}"]["ppl_on_eval_ids"], rel=2e-3)


def open_builder(store, folder, **calibration):
    facts = {"source": "pocket", "windows": 10, "length": 32} | calibration
    return ArtifactBuilder(store, open_for(ModelRef(str(folder)), store, "cpu"), Calibration(**facts))


@pytest.mark.parametrize("recipe", ["magnitude@0.5", "wanda@0.5", "rtn@3bit,group=32"])
def test_made_once_then_worn_bit_for_bit(store, tiny_folder, recipe):
    builder = open_builder(store, tiny_folder)
    assert len(finish(builder.make(parse(recipe)))) == 2
    made = linears(builder.opened.model)
    assert finish(builder.make(parse(recipe))) == []
    again = open_builder(store, tiny_folder)
    dense = linears(again.opened.model)
    again.apply_recipe(parse(recipe))
    worn = linears(again.opened.model)
    assert all(torch.equal(made[name], worn[name]) for name in made)
    again.apply_recipe(parse("dense"))
    assert all(torch.equal(dense[name], found) for name, found in linears(again.opened.model).items())
    card = weight_artifacts.card(store, builder.key(parse(recipe)))
    assert card.bytes == sum(weight_artifacts.block_path(store, card.key, b).stat().st_size for b in range(card.blocks))


def stopped(store, folder, recipe, killed_after=1, share=0.0, **calibration):
    """Begin an artifact and stop behind so many blocks; `share` 0 keeps no inputs, a large one all."""
    builder = open_builder(store, folder, **calibration)
    builder.inputs_share = share
    steps = builder.make(parse(recipe))
    for _ in range(killed_after):
        next(steps)
    steps.close()
    return store.root / "staging" / builder.key(parse(recipe))


def same_blocks(one, other, key):
    return all(
        weight_artifacts.block_path(one, key, block).read_bytes()
        == weight_artifacts.block_path(other, key, block).read_bytes()
        for block in range(2)
    )


@pytest.mark.parametrize(
    ("recipe", "killed_after", "share", "propagate"),
    [
        ("wanda@0.5", 0, 0.0, "compressed"),
        ("wanda@0.5", 1, 1e9, "compressed"),
        ("wanda@0.5,alloc=owl", 1, 0.0, "compressed"),
        ("sparsegpt@2:4", 1, 0.0, "dense"),
        ("gptq@4bit,group=32,recover=blocks,recover_tokens=1024", 1, 0.0, "compressed"),
        ("gptq@4bit,group=32,recover=blocks,recover_tokens=1024", 1, 1e9, "compressed"),
        ("magnitude@2:4", 1, 0.0, "compressed"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_stopped_anywhere_gives_the_same_bytes(
    store, tmp_path, tiny_folder, recipe, killed_after, share, propagate, streamed
):
    from kick_core.store import open_store

    straight = open_store(tmp_path / "straight")
    finish(open_builder(straight, tiny_folder, propagate=propagate).make(parse(recipe)))
    staging = stopped(store, tiny_folder, recipe, killed_after, share, propagate=propagate)
    assert bool([*staging.glob("next-input-*")]) == bool(share)
    resumed = open_builder(store, tiny_folder, propagate=propagate)
    if streamed:
        resumed.opened = open_for(ModelRef(str(tiny_folder)), store, "cpu", streamed=True)
    reports = finish(resumed.make(parse(recipe)))
    assert [r.resumed for r in reports] == [b < killed_after for b in range(2)]
    assert same_blocks(straight, store, resumed.key(parse(recipe)))


@pytest.mark.parametrize("propagate", ["compressed", "dense"])
def test_blocks_that_give_other_activations_here_are_made_again(store, tmp_path, tiny_folder, propagate):
    """As after a move to another machine: never a mixture, and the card says so."""
    from kick_core.store import files, open_store

    recipe = parse("wanda@0.5")
    straight = open_store(tmp_path / "straight")
    finish(open_builder(straight, tiny_folder, propagate=propagate).make(recipe))
    told = stopped(store, tiny_folder, recipe.text, propagate=propagate) / "block-0000.json"
    content = files.read_sealed_json(told)
    content["next"]["digest"] = "0" * 32
    files.replace_file(told, files.seal_json(content))
    builder = open_builder(store, tiny_folder, propagate=propagate)
    finish(builder.make_all([recipe]) if propagate == "dense" else builder.make(recipe))
    assert same_blocks(straight, store, builder.key(recipe))
    assert [w for w in weight_artifacts.card(store, builder.key(recipe)).warnings if "begun anew" in w]


def test_who_goes_on_runs_as_many_windows_in_a_forward_as_before(monkeypatch):
    ids, before = token_ids(9), {}
    with monkeypatch.context() as patched:
        patched.setattr(activations, "BATCH", 3)
        steps = walk(tiny_llama(), parse("wanda@0.5"), ids)
        first = next(steps)
        assert first.batches == (3,)
        (last,) = steps

    def apply(block):
        for matrix in matrices(decoder_blocks(model)[block]):
            matrix.write(first.results[matrix.name].weight)

    model, advance = tiny_llama(), activations.Inputs.advance

    def noting(self, block, index):
        before.setdefault(index, self.batch)
        return advance(self, block, index)

    with monkeypatch.context() as patched:
        patched.setattr(activations.Inputs, "advance", noting)
        (again,) = walk(model, parse("wanda@0.5"), ids, resume=Resume(1, apply, [(3,)], first.digest))
    assert before == {0: 3}
    assert all(torch.equal(again.results[name].weight, one.weight) for name, one in last.results.items())


def test_a_digest_tells_every_change_and_place():
    hidden = torch.randn(5, 7, 6).bfloat16()
    whole = activations.digest([hidden], hidden.device)
    assert activations.digest([hidden.clone()], hidden.device) == whole
    changed = []
    for place in range(0, hidden.numel(), 11):
        other = hidden.clone()
        other.view(torch.int16).flatten()[place] ^= 1
        changed.append(activations.digest([other], hidden.device))
    swapped = hidden[[1, 0, 2, 3, 4]], hidden.flip(1), hidden.flip(2)
    changed += [activations.digest([other], hidden.device) for other in swapped]
    assert len({whole, *changed}) == len(changed) + 1


def test_an_artifact_fits_only_its_own_model(store, tiny_folder, tmp_path):
    builder = open_builder(store, tiny_folder)
    finish(builder.make(parse("magnitude@0.5")))
    other = open_builder(store, save_tiny(tmp_path / "other", seed=1))
    assert other.key(parse("magnitude@0.5")) != builder.key(parse("magnitude@0.5"))
    with pytest.raises(KickError, match="another model"):
        other.opened.apply_weights(store, builder.key(parse("magnitude@0.5")))


def test_keys_follow_what_can_change_the_bytes(store, tiny_folder):
    wanda = parse("wanda@0.5")
    key = open_builder(store, tiny_folder).key(wanda)
    assert open_builder(store, tiny_folder).key(wanda) == key
    for change in ({"seed": 1}, {"windows": 9}, {"length": 31}, {"propagate": "dense"}):
        assert open_builder(store, tiny_folder, **change).key(wanda) != key
    magnitude = parse("magnitude@0.5")  # looks at no data: the calibration does not matter
    assert open_builder(store, tiny_folder).key(magnitude) == open_builder(store, tiny_folder, seed=1).key(magnitude)


def test_refusals(store, tiny_folder):
    builder = open_builder(store, tiny_folder)
    with pytest.raises(BadRequest, match=r"block 0, self_attn\.q_proj .*7 divides"):
        finish(builder.make(parse("magnitude@3:7")))
    with pytest.raises(BadRequest, match="context of 512"):
        finish(open_builder(store, tiny_folder, length=4096).make(parse("wanda@0.5")))
    with pytest.raises(BadRequest, match="use --windows"):
        finish(open_builder(store, tiny_folder, windows=1_000_000).make(parse("wanda@0.5")))
    builder.opened.restore_dense()
    next(iter(builder.opened.block_matrices(1))).stored[0, 0] = float("nan")
    with pytest.raises(KickError, match=r"block 1: self_attn\.q_proj holds 1 NaN"):
        finish(walk(builder.opened.model, parse("magnitude@0.5"), None))


def test_numbers_that_are_not_finite_after_compression_are_a_finding(store, tmp_path):
    """A grid's step beyond float16's largest number; what comes after it is compressed without data."""
    model = tiny_llama().half()
    for layer in model.model.layers:
        layer.input_layernorm.weight.data.fill_(2e-5)  # so that the dense model's own numbers stay finite
        values = layer.self_attn.v_proj.weight.data
        values.copy_(values.float() / values.float().abs().max() * 65504)
    model.save_pretrained(save_tiny(tmp_path / "model"))
    builder, recipe = open_builder(store, tmp_path / "model", windows=4), parse("gptq@4bit,group=16")
    first, second = finish(builder.make(recipe))
    assert any("not finite after compression: 1 of its weights" in layer.note for layer in first.layers)
    assert "inputs of 7 of its 7 matrices are not finite" in second.note
    warnings = weight_artifacts.card(store, builder.key(recipe)).warnings
    assert any(w.startswith("block 0, self_attn.v_proj: not finite") and "float16" in w for w in warnings)
    with pytest.raises(KickError, match=r"v_proj\.weight is not finite under gptq.*not exported"):
        export(builder, recipe, tmp_path / "exported", "dense")
    with pytest.raises(KickError, match="--dtype bfloat16"):  # the dense model's own are refused
        broken = open_builder(store, tmp_path / "model", windows=4, propagate="dense")
        broken.opened.model.model.layers[0].mlp.up_proj.weight.data.fill_(6e4)
        finish(walk(broken.opened.model, recipe, broken.ids(), propagate="dense"))


def test_load_gives_the_worn_model(tmp_path, tiny_folder):
    model, tokenizer = kick_core.load(str(tiny_folder), "magnitude@0.5", cache=str(tmp_path / "cache"), device="cpu")
    assert abs(float((model.model.layers[0].mlp.up_proj.weight == 0).float().mean()) - 0.5) < 1e-6
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert methods.card("wanda").needs == "norms"


def test_calibration_sources(tmp_path, tiny_folder, store):
    tokenizer = open_for(ModelRef(str(tiny_folder)), None, "cpu").tokenizer
    from kick_core.compression.calibration import digest, token_windows

    def windows(source, **facts):
        return token_windows(Calibration(str(source), **({"windows": 4, "length": 16} | facts)), tokenizer, 512)

    assert windows("pocket").shape == (4, 16)
    assert torch.equal(windows("pocket"), windows("pocket"))
    assert digest(windows("pocket")) != digest(windows("pocket", seed=1))
    (tmp_path / "text.txt").write_text("The river runs to the sea. " * 200)
    (tmp_path / "lines.jsonl").write_text('{"text": "The river runs to the sea."}\n' * 100)
    assert windows(tmp_path / "text.txt").shape == windows(tmp_path / "lines.jsonl").shape == (4, 16)
    import numpy as np

    np.save(tmp_path / "ids.npy", token_ids(6, 20).numpy())
    assert torch.equal(windows(tmp_path / "ids.npy"), token_ids(6, 20)[:4, :16])
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "bad.jsonl").write_text('{"words": 1}\n')
    np.save(tmp_path / "big.npy", token_ids(2, 16).numpy() + 10_000)
    for source, named in [
        ("nowhere.txt", "nowhere.txt"),
        (tmp_path / "empty.txt", "is empty"),
        (tmp_path / "bad.jsonl", "line 1"),
        (tmp_path / "big.npy", "vocabulary"),
        (tmp_path / "missing.npy", "is not there"),
    ]:
        with pytest.raises(BadRequest, match=named):
            windows(source)


def test_owl_shares_out_one_sparsity_by_outliers():
    from kick_core.compression.allocation import outlier_shares, owl_ratios

    assert owl_ratios([0.1, 0.1], 0.5) == [0.5, 0.5]
    ratios = owl_ratios([0.0, 0.1, 0.2], 0.6)
    assert ratios == [0.68, 0.6, 0.52] and sum(ratios) / 3 == pytest.approx(0.6)
    model, ids = tiny_llama(layers=4), token_ids()
    decoder_blocks(model)[2].mlp.up_proj.weight.data[:2] *= 40
    shares = outlier_shares(model, ids)
    *reports, card = finish(kick_core.compress(model, "wanda@0.5,alloc=owl", ids))
    found = [sum(x.zeros for x in r.layers) / sum(x.rows * x.cols for x in r.layers) for r in reports]
    assert found.index(min(found)) == shares.index(max(shares))
    assert card.sparsity == pytest.approx(0.5, abs=0.01) and max(found) - min(found) == pytest.approx(0.16, abs=0.02)
    for recipe, named in [("wanda@2:4,alloc=owl", "for a ratio"), ("wanda@0.5,alloc=best", "uniform")]:
        with pytest.raises(BadRequest, match=named):
            finish(kick_core.compress(tiny_llama(), recipe, ids))
    assert methods.payload(parse("wanda@0.5,alloc=uniform")) == methods.payload(parse("wanda@0.5"))


def test_many_recipes_from_one_pass_are_the_same_artifacts(store, tmp_path, tiny_folder):
    from kick_core.store import open_store

    recipes = [parse(t) for t in ("wanda@0.5", "sparsegpt@2:4", "gptq@4bit,group=32", "wanda@0.4,alloc=owl")]
    apart = open_store(tmp_path / "apart")
    single = open_builder(apart, tiny_folder, propagate="dense")
    for recipe in recipes:
        finish(single.make(recipe))
    builder = open_builder(store, tiny_folder, propagate="dense")
    dense = linears(builder.opened.model)
    steps = builder.make_all(recipes)
    for _ in range(len(recipes) + 1):  # stopped in the second block
        next(steps)
    steps.close()
    reports = finish(open_builder(store, tiny_folder, propagate="dense").make_all(recipes))
    assert len(reports) >= len(recipes)
    assert all(torch.equal(dense[name], weight) for name, weight in linears(builder.opened.model).items())
    for recipe in recipes:
        key = builder.key(recipe)
        assert key == single.key(recipe)
        for block in range(2):
            assert (
                weight_artifacts.block_path(store, key, block).read_bytes()
                == weight_artifacts.block_path(apart, key, block).read_bytes()
            )
    assert finish(builder.make_all(recipes)) == []


@pytest.mark.parametrize("recipe", ["magnitude@0.5", "wanda@2:4", "sparsegpt@0.5", "wanda@0.5,alloc=owl"])
def test_a_model_on_disk_is_compressed_to_the_same_bytes(store, tmp_path, tiny_folder, recipe):
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.store import open_store

    whole = open_store(tmp_path / "whole")
    finish(open_builder(whole, tiny_folder).make(parse(recipe)))
    opened = open_for(ModelRef(str(tiny_folder)), store, "cpu", streamed=True)
    assert opened.streamed and all(p.is_meta for p in decoder_blocks(opened.model).parameters())
    builder = ArtifactBuilder(store, opened, Calibration("pocket", 10, 32))
    finish(builder.make(parse(recipe)))
    assert all(p.is_meta for p in decoder_blocks(opened.model).parameters())
    for block in range(2):
        key = builder.key(parse(recipe))
        assert (
            weight_artifacts.block_path(store, key, block).read_bytes()
            == weight_artifacts.block_path(whole, key, block).read_bytes()
        )


@pytest.mark.parametrize("recipe", ["wanda@0.5", "sparsegpt@0.5", "sparsegpt@2:4+gptq@4bit,group=32"])
def test_as_many_threads_as_one_likes_make_the_same(recipe):
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = tiny_llama()
            for _ in kick_core.compress(model, recipe, token_ids(4, 64)):
                pass
            made.append(model.state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name, tensor in made[0].items():
        assert all(torch.equal(tensor, other[name]) for other in made[1:]), name


def test_many_rows_are_swept_alike_by_many_threads():
    """Threads share large tensors out, and vectors round the ends of their parts in another way."""
    made = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(1408, 256, generator=made), torch.randn(4, 256, 256, generator=made)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            results.append(kick_core.compress_matrix(weight, inputs, "sparsegpt@0.5").weight)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
