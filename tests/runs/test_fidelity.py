"""KL, agreement and overlap against whole distributions; and what is stored, resumed and extended."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from kick_core import engine, evaluation, tasks
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.errors import BadRequest
from kick_core.evaluation.perplexity import place
from kick_core.runs import fidelity
from kick_core.runs import measure as runs
from kick_core.runs.measure import requested
from kick_core.spec import DENSE, Calibration, ModelRef, parse
from kick_core.store import checks, results
from kick_core.store import fidelity as kept
from tests.tiny import tiny_llama, token_ids

RECIPE = parse("magnitude@0.5")


@torch.inference_mode()
def whole(model, windows):
    return model(windows).logits[:, :-1].double().log_softmax(-1)


@pytest.fixture(scope="module")
def pair():
    return tiny_llama(), tiny_llama(seed=1), token_ids(5, 40)


def both(pair, top):
    dense, other, windows = pair
    before = [part for _, part in engine.window_scores(dense, windows, rows=2, top=top)]
    reference = fidelity._joined(before)
    after = fidelity._joined([part for _, part in engine.given_scores(other, windows, reference.ids, rows=2)])
    return reference, after


def test_with_every_token_kept_kl_and_overlap_are_exact(pair):
    dense, other, windows = pair
    found = fidelity.compare(*both(pair, 4096))
    p, q = whole(dense, windows), whole(other, windows)
    exact = rel_entr(p.exp().numpy(), q.exp().numpy()).sum(-1).ravel()
    assert found["kl"] == pytest.approx(exact, rel=1e-4)
    overlap = torch.minimum(p.exp(), q.exp()).sum(-1).numpy().ravel()
    assert found["overlap"] == pytest.approx(overlap, rel=1e-4)
    assert found["same"].tolist() == (p.argmax(-1) == q.argmax(-1)).ravel().tolist()
    came = q.gather(-1, windows[:, 1:, None])[..., 0].numpy().ravel()
    assert found["logprob"] == pytest.approx(came, rel=1e-4)
    assert found["window"].tolist() == [w for w in range(5) for _ in range(39)]


def test_fewer_tokens_bound_kl_from_below_and_overlap_from_above(pair):
    last = fidelity.compare(*both(pair, 4096))
    for top in (512, 64, 8, 1):
        found = fidelity.compare(*both(pair, top))
        assert (found["kl"] <= last["kl"] + 1e-5).all() and (found["overlap"] >= last["overlap"] - 1e-5).all()
        assert found["kl"].mean() > 0 and found["same"].tolist() == last["same"].tolist()
        last = found


def test_the_rest_is_what_is_left(pair):
    reference, _ = both(pair, 64)
    mass = reference.logprobs.double().exp().sum(-1) + reference.rest.double().exp()
    assert torch.allclose(mass, torch.ones_like(mass), atol=1e-5)
    assert (reference.logprobs.diff(dim=-1) <= 0).all() and reference.ids.dtype == torch.int32


def test_a_broken_model_is_nan_and_never_the_same(pair):
    dense, _, windows = pair
    broken = tiny_llama()
    broken.model.norm.weight.data[0] = torch.nan
    reference = fidelity._joined([part for _, part in engine.window_scores(dense, windows, rows=2)])
    after = fidelity._joined([part for _, part in engine.given_scores(broken, windows, reference.ids, rows=2)])
    found = fidelity.compare(reference, after)
    assert np.isnan(found["kl"]).all() and not found["same"].any()


@pytest.fixture
def asked(tiny_folder, store):
    builder = ArtifactBuilder(
        store, open_for(ModelRef(str(tiny_folder)), store, "cpu"), Calibration(windows=2, length=16)
    )
    ask = evaluation.open_session(builder.opened.model, builder.opened.tokenizer)
    return builder, ask, runs.task_data(tasks.get("perplexity"), ask)


def run(asked, store, limit, recipe=RECIPE):
    builder, ask, loaded = asked
    for _ in builder.make(recipe):
        pass
    return sum(fidelity.measure(store, builder, recipe, ask, loaded, limit))


def test_stored_once_extended_and_never_read_twice(asked, store):
    builder, ask, loaded = asked
    assert run(asked, store, 3) == 3 and run(asked, store, 3) == 0
    card = fidelity.card(builder, RECIPE, ask, loaded)
    assert fidelity.remaining(store, builder, RECIPE, ask, loaded, 5) == 2
    assert run(asked, store, 5) == 2
    table = kept.positions(store, card.key)
    assert table.num_rows == 5 * (ask.window - 1)
    places = [place(example) for example in requested(loaded, 5)]
    assert table["window"].to_pylist() == [at for at in places for _ in range(ask.window - 1)]
    (listed,) = (card for card in kept.cards(store) if kept.parts(store, card.key))
    assert listed.recipe == RECIPE.text and listed.settings["top"] == fidelity.TOP
    reference = fidelity.card(builder, DENSE, ask, loaded)
    (first, _) = kept.tops(store, reference.key)
    assert first.stat().st_size == pytest.approx(fidelity.bytes_for(3, ask.window), rel=0.01)


def test_the_text_s_log_probability_is_the_perplexity_run_s(asked, store):
    builder, ask, loaded = asked
    run(asked, store, 4)
    card = runs.run_card(builder, RECIPE, ask, loaded)
    for _ in runs.measure(store, ask, card, loaded, 4):
        pass
    places = [place(example) for example in requested(loaded, 4)]
    sums = dict(zip(places, (output.logprobs[0] for output in results.outputs(store, card.key)), strict=True))
    table = kept.positions(store, fidelity.card(builder, RECIPE, ask, loaded).key).to_pandas()
    assert table.groupby("window")["logprob"].sum().to_dict() == pytest.approx(sums, rel=1e-5)


def test_dense_agrees_with_itself(asked, store):
    assert run(asked, store, 2, DENSE) == 2
    builder, ask, loaded = asked
    table = kept.positions(store, fidelity.card(builder, DENSE, ask, loaded).key).to_pandas()
    assert table["same"].all() and table["kl"].max() < 1e-6 and table["overlap"].min() > 1 - 1e-5


def test_damage_is_set_aside_and_made_again(asked, store):
    builder, ask, loaded = asked
    run(asked, store, 3)
    key = fidelity.card(builder, RECIPE, ask, loaded).key
    (path,) = kept.parts(store, key)
    whole_part = path.read_bytes()
    path.write_bytes(whole_part[:-1])
    assert checks.set_damage_aside(store, store.folder(kept.ROOM, key), deep=False) == []
    assert "quarantine" in checks.set_damage_aside(store, store.folder(kept.ROOM, key), deep=True)[0]
    assert kept.parts(store, key) == [] and run(asked, store, 3) == 3
    assert kept.parts(store, key)[0].read_bytes() == whole_part


def test_verify_names_the_damage(asked, store, capsys):
    from kick_core.cli import main

    builder, ask, loaded = asked
    run(asked, store, 2)
    assert main(["verify", "--deep", "--cache", str(store.root)]) == 0
    (path,) = kept.tops(store, fidelity.card(builder, DENSE, ask, loaded).key)
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", "--deep", "--cache", str(store.root)]) == 1
    assert path.name in capsys.readouterr().out and not path.exists()


def test_only_running_text_is_compared(asked, store):
    builder, ask, _ = asked
    loaded = runs.task_data(tasks.get("factoid_qa"), ask)
    with pytest.raises(BadRequest, match="running text"):
        fidelity.card(builder, RECIPE, ask, loaded)
