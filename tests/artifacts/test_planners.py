"""Recipes that look at the whole model first: what they find, that they keep to the budget, and what they refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kick_core import compress, compress_matrix, methods, tasks
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.artifacts.planners import PlannerContext, _survey, searched_on
from kick_core.artifacts.planners._search import cheapest, ratio_grid
from kick_core.artifacts.planners._survey import Survey, survey
from kick_core.artifacts.planners._units import probe_inputs, units
from kick_core.artifacts.planners.mop import freed
from kick_core.compression.activations import all_in_place
from kick_core.errors import BadRequest, KickError
from kick_core.evaluation import open_session
from kick_core.methods import storage
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.records import PlanProgress
from kick_core.runs import measure as runs
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import Store, open_store, weight_artifacts
from tests.models.test_families import FAMILIES, make
from tests.tiny import save_tiny, tiny_llama, token_ids

SEARCH = "wanda@0.5,alloc=search"


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory):
    """Four blocks, of which the third does next to nothing."""
    folder = save_tiny(tmp_path_factory.mktemp("deep") / "model")
    model = tiny_llama(layers=4)
    for matrix in matrices(decoder_blocks(model)[2]):
        matrix.write(matrix.read() * 0.1)
    model.save_pretrained(folder)
    return folder


def open_builder(store: Store, folder, *, propagate="compressed", streamed=False) -> ArtifactBuilder:
    opened = open_for(ModelRef(str(folder)), store, "cpu", streamed=streamed)
    return ArtifactBuilder(store, opened, Calibration("pocket", 10, 32, propagate=propagate))


def made(builder: ArtifactBuilder, text: str):
    """The card of a recipe that is made if need be, and the looks at the model that this took."""
    looks = [report for report in builder.make(parse(text)) if isinstance(report, PlanProgress)]
    return weight_artifacts.card(builder.store, builder.key(parse(text))), looks


def shares(card) -> dict[str, float]:
    return {layer.name: layer.zeros / (layer.rows * layer.cols) for layer in card.layers}


# --- the knapsack --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_the_allocation_is_the_best_or_next_to_it(seed):
    chance = np.random.default_rng(seed)
    costs = np.sort(chance.integers(1, 40, (5, 4)), axis=1)[:, ::-1].astype(float)
    errors = np.sort(chance.random((5, 4)), axis=1)
    budget = float(costs.min(axis=1).sum() + chance.random() * (costs.max(axis=1) - costs.min(axis=1)).sum())
    rows = np.arange(5)
    every = [np.array(choice) for choice in itertools.product(range(4), repeat=5)]
    fitting = [choice for choice in every if costs[rows, choice].sum() <= budget]
    best = min(errors[rows, choice].sum() for choice in fitting)
    found = np.array(cheapest(errors, costs, budget))
    assert costs[rows, found].sum() <= budget
    # Lagrange's bound: no further from the best than one matrix's step
    assert best <= errors[rows, found].sum() <= best + (errors.max(axis=1) - errors.min(axis=1)).max()
    left = budget - costs[rows, found].sum()
    for row, choice in itertools.product(range(5), range(4)):
        more = costs[row, choice] - costs[row, found[row]]
        assert more > left or errors[row, choice] >= errors[row, found[row]]


def test_on_convex_errors_the_allocation_is_the_best():
    ratios = np.arange(9) / 8
    errors = np.array([0.1, 1.0, 3.0])[:, None] * ratios**2
    costs = np.full((3, 1), 8.0) * (1 - ratios)
    found = cheapest(errors, costs, 12.0)
    every = [choice for choice in itertools.product(range(9), repeat=3) if sum(choice) >= 12]
    rows = np.arange(3)
    assert errors[rows, found].sum() == min(errors[rows, list(choice)].sum() for choice in every)
    assert found[0] > found[1] > found[2]
    with pytest.raises(KickError, match="nothing fits a budget"):
        cheapest(errors, costs + 5, 12.0)


def test_the_ladder_has_the_ratio_that_was_asked_for():
    ratios = [one.target.ratio for one in ratio_grid(methods.resolve(parse("wanda@0.33,alloc=search")))]
    assert 0.33 in ratios and ratios == sorted(set(ratios)) and min(ratios) == 0.08 and max(ratios) == 0.58
    assert [target_label.target.ratio for target_label in ratio_grid(methods.resolve(parse("wanda@0.9,alloc=search")))][
        -1
    ] == 0.95
    own = ratio_grid(methods.resolve(parse("sparsegpt@0.5,alloc=search,objective=perplexity")))[0]
    assert {name for name, _ in own.options} == set(methods.card("sparsegpt").options)


# --- alloc=search --------------------------------------------------------------------------------------------


def test_a_search_by_error_keeps_as_many_weights_and_lowers_the_sum_of_errors(store, deep_folder):
    builder = open_builder(store, deep_folder)
    card, looks = made(builder, SEARCH)
    assert [look.done for look in looks] == [1, 2, 3, 4]
    plan = card.plan
    assert plan["objective"] == "error" and plan["found"] < plan["uniform"] and plan["spent"] <= plan["budget"]
    assert 0.5 <= card.sparsity < 0.51
    found = shares(card)
    assert {name: parse(text).target.ratio for name, text in plan["recipes"].items()} == pytest.approx(found, abs=0.02)
    assert max(found.values()) - min(found.values()) > 0.1
    # the same text finds the same again, in a cache of its own
    again, _ = made(open_builder(open_store(store.root.parent / "again"), deep_folder), SEARCH)
    assert again.plan == plan and again.key == card.key


@pytest.mark.parametrize("objective", ["perplexity", "factoid_qa"])
def test_a_search_that_looks_at_the_model_is_never_worse_than_even(store, deep_folder, objective):
    text = f"{SEARCH},objective={objective},search_steps=6" + ",search_examples=20" * (objective != "perplexity")
    builder = open_builder(store, deep_folder)
    dense = {name: p.detach().clone() for name, p in builder.opened.model.named_parameters()}
    card, looks = made(builder, text)
    plan, worse = card.plan, (np.less if objective == "perplexity" else np.greater)
    assert not worse(plan["uniform"], plan["found"]) and not worse(plan["error"], plan["found"])
    assert len(plan["history"]) == 6 and 2 <= plan["evaluations"] <= 8
    assert [look.note for look in looks][-1].startswith(objective)
    assert [look.done for look in looks] == list(range(1, looks[-1].total + 1))
    assert 0.5 <= card.sparsity < 0.51
    builder.apply_recipe(parse("dense"))
    assert all(torch.equal(dense[name], p) for name, p in builder.opened.model.named_parameters())
    other, _ = made(builder, text + ",search_seed=1")
    assert other.key != card.key
    assert objective != "perplexity" or other.plan["history"] != plan["history"]


def test_a_joint_recipe_is_searched_whole(store, deep_folder):
    builder = open_builder(store, deep_folder)
    text = f"{SEARCH}+rtn@4bit,group=32"
    card, _ = made(builder, text)
    assert 0.5 <= card.sparsity < 0.52 and card.plan["found"] < card.plan["uniform"]
    assert len(set(card.plan["recipes"].values())) > 1
    assert all(recipe.endswith("+rtn@4bit,group=32") for recipe in card.plan["recipes"].values())
    tensors = load_file(weight_artifacts.block_path(store, card.key, 0))
    assert "mlp.up_proj.codes4" in tensors and "mlp.up_proj.mask" not in tensors


def test_what_was_found_is_what_was_measured(store, deep_folder):
    """With dense propagation the artifact is the candidate: its perplexity is the one that the search reports."""
    from kick_core.artifacts.planners._objective import objective

    builder = open_builder(store, deep_folder, propagate="dense")
    recipe = parse(f"{SEARCH},objective=perplexity,search_steps=4")
    told = [report for _, report in builder.make_all([recipe, parse("wanda@0.3")])]
    assert any(isinstance(report, PlanProgress) for report in told)
    card = weight_artifacts.card(store, builder.key(recipe))
    builder.apply_recipe(recipe)
    sought = objective(PlannerContext(builder.opened, methods.resolve(recipe), builder.ids(), store.root))
    assert sought.measure() == pytest.approx(card.plan["found"], rel=1e-6)


def test_a_task_is_never_asked_what_its_search_has_looked_at(store, deep_folder):
    recipe = parse(f"{SEARCH},objective=factoid_qa,search_examples=50")
    task = tasks.get("factoid_qa")
    all_ids = [example.id for example in task.strict.load("pocket")]
    assert [example.id for example in searched_on(recipe, task, "pocket")] == all_ids[-50:]
    assert searched_on(recipe, tasks.get("retrieval_qa_closed"), "pocket") == ()
    assert searched_on(parse(SEARCH), task, "pocket") == searched_on(parse("wanda@0.5"), task, "pocket") == ()
    opened = open_builder(store, deep_folder).opened
    loaded = runs.task_data(task, open_session(opened.model, opened.tokenizer))
    assert [example.id for example in runs.requested(loaded, None, recipe)] == all_ids[:-50]
    assert [example.id for example in runs.requested(loaded, 7, recipe)] == all_ids[:7]
    assert len(runs.requested(loaded, None)) == 600
    with pytest.raises(BadRequest, match="search_examples=300 or fewer"):
        searched_on(parse(f"{SEARCH},objective=factoid_qa,search_examples=301"), task, "pocket")


def test_a_stopped_make_goes_on_by_the_same_plan(store, deep_folder):
    steps = open_builder(store, deep_folder).make(parse(SEARCH))
    while isinstance(next(steps), PlanProgress):
        pass
    steps.close()
    card, looks = made(open_builder(store, deep_folder), SEARCH)
    assert looks == []
    whole, _ = made(open_builder(open_store(store.root.parent / "whole"), deep_folder), SEARCH)
    for block in range(4):
        ours, theirs = (
            weight_artifacts.block_path(s, card.key, block) for s in (store, open_store(store.root.parent / "whole"))
        )
        assert ours.read_bytes() == theirs.read_bytes()
    assert whole.plan == card.plan
    assert sorted(path.name for path in store.folder("weights", card.key).iterdir()) == sorted(
        [*(f"block-{block:04d}.safetensors" for block in range(4)), "card.json", "manifest.json"]
    )


@pytest.mark.parametrize("recipe", [SEARCH, "depth@0.5", "width@0.5", "mix@5bpw"])
def test_a_model_on_disk_is_planned_alike(store, tmp_path, deep_folder, recipe):
    whole, _ = made(open_builder(open_store(tmp_path / "whole"), deep_folder), recipe)
    streamed = open_builder(store, deep_folder, streamed=True)
    assert streamed.opened.streamed
    assert made(streamed, recipe)[0].plan == whole.plan
    with pytest.raises(BadRequest, match="in memory as a whole"):
        made(streamed, f"{SEARCH},objective=perplexity")


# --- mixtures ------------------------------------------------------------------------------------------------


def test_a_mixture_keeps_to_its_budget(store, deep_folder):
    builder = open_builder(store, deep_folder)
    text = "mix@5.4bpw,choices=gptq@8bit/gptq@4bit/gptq@3bit/sparsegpt@2:4+gptq@4bit/dense"
    card, _ = made(builder, text)
    plan = card.plan
    shapes = {layer.name: storage.Shape(layer.rows, layer.cols) for layer in card.layers}
    sizes = {name: shape.weights for name, shape in shapes.items()}
    spent = sum(
        8 * storage.matrix_size(parse(recipe), shapes[name], 4).alone for name, recipe in plan["recipes"].items()
    )
    assert spent == pytest.approx(plan["spent"]) and spent <= 5.4 * sum(sizes.values())
    assert plan["found"] <= plan["uniform"] and len(set(plan["recipes"].values())) > 1
    builder.apply_recipe(parse(text))
    for name, recipe in plan["recipes"].items():
        block, _, matrix = name.partition(".")
        tensors = load_file(weight_artifacts.block_path(store, card.key, int(block)))
        kinds = {key.removeprefix(f"{matrix}.") for key in tensors if key.startswith(f"{matrix}.")}
        assert ("codes4" in kinds) == ("4bit" in recipe) and ("mask" in kinds) == (recipe == "dense")
    with pytest.raises(BadRequest, match=r"no choice takes 1\.5 bits a weight or less"):
        made(builder, "mix@1.5bpw")


def test_bits_of_a_weight():
    assert storage.bits_per_weight(parse("wanda@0.5")) == 9
    assert storage.bits_per_weight(parse("depth@0.25")) == 12
    assert storage.bits_per_weight(parse("gptq@4bit")) == pytest.approx(4 + 40 / 128)
    assert storage.bits_per_weight(parse("sparsegpt@2:4+gptq@4bit")) == pytest.approx(0.5 * 4 + 40 / 128 + 1)
    assert storage.bits_per_weight(parse("mix@4.5bpw")) == 4.5
    assert storage.bits_per_weight(parse("dense"), 32) == 32
    assert storage.bits_per_weight(parse("of_old@4bit")) == pytest.approx(4 + 40 / 128)


# --- depth, width, both --------------------------------------------------------------------------------------


@torch.no_grad()
def test_depth_drops_the_block_that_does_least_and_leaves_the_rest(store, deep_folder):
    builder = open_builder(store, deep_folder)
    card, _ = made(builder, "depth@0.25")
    assert card.plan["blocks"] == [2] and card.sparsity == 0.25
    ids = token_ids(2, 16)
    masked = builder.opened.model(ids).logits
    builder.apply_recipe(parse("dense"))
    del builder.opened.model.model.layers[2]
    assert torch.equal(builder.opened.model(ids).logits, masked)
    with pytest.raises(BadRequest, match="drops no block"):
        made(open_builder(store, deep_folder), "depth@0.2")


def test_influence_is_measured_anew_after_every_block(store, deep_folder):
    builder = open_builder(store, deep_folder)
    card, looks = made(builder, "depth@0.5")
    context = PlannerContext(builder.opened, parse("depth@0.5"), builder.ids(), store.root)
    builder.apply_recipe(parse("dense"))
    first, second = survey(context), survey(context, without=[2])
    assert card.plan["influence"] == pytest.approx([first.influence[2], second.influence[card.plan["blocks"][1]]])
    assert second.influence[3] != first.influence[3] and 2 not in second.influence
    assert len(looks) == 2


def test_blocks_that_masks_cannot_drop_are_refused(tmp_path, store):
    model = make("GPT2")
    for block in decoder_blocks(model):
        block.mlp.c_proj.bias.data.fill_(0.3)
    folder = save_tiny(tmp_path / "gpt2")
    model.save_pretrained(folder)
    for text in ("depth@0.5", "mop@0.5"):
        with pytest.raises(KickError, match="still changes what passes through"):
            made(biased_builder(store, folder), text)


def biased_builder(store, folder):
    builder = open_builder(store, folder)
    builder._ids = token_ids(4, 16, vocabulary=128)
    return builder


HEADS = {"Phi3": 2, "GPT2": 4, "GPTNeoX": 4, "OPT": 4}
FUSED = {"Phi3": (64, 32, 32), "GPT2": (64, 64, 64), "GPTNeoX": (192,)}


@torch.no_grad()
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "Falcon"])
def test_channels_and_heads_of_every_family(family):
    model, ids = make(family), token_ids(2, 48, vocabulary=128)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    heads, *channels = units(model, 0, probe_inputs(model, ids, all_in_place))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert heads.groups == HEADS.get(family, 2) and heads.width == 64
    assert channels and all(kind.groups == kind.width and kind.producers for kind in channels)
    if family in FUSED:
        assert heads.producers[0][1] == FUSED[family]
    if family == "Olmo2":  # its norm over all heads makes queries and keys of one head the others' business
        assert [name for name, _ in heads.producers] == ["self_attn.v_proj"]
    # dropping the last unit's rows is dropping its columns, nothing else
    by_name = {matrix.name: matrix for matrix in matrices(decoder_blocks(model)[0])}
    for kind in (heads, channels[0]):
        with_cols = _without(model, by_name, kind, ids, rows=False)
        both = _without(model, by_name, kind, ids, rows=True)
        assert torch.allclose(with_cols, both, atol=1e-5)


@torch.no_grad()
def test_heads_that_share_one_key_stay():
    """Falcon's queries share one head of keys and values, so that there are channels alone to drop."""
    model, ids = make("Falcon"), token_ids(2, 48, vocabulary=128)
    (channels,) = units(model, 0, probe_inputs(model, ids, all_in_place))
    assert channels.reader == "mlp.dense_4h_to_h" and channels.groups == channels.width == 256
    assert channels.producers == (("mlp.dense_h_to_4h", (256,)),)


def _without(model, by_name, kind, ids, *, rows):
    kept = {name: matrix.read().clone() for name, matrix in by_name.items()}
    weight = kept[kind.reader].clone()
    weight[:, list(kind.cols(kind.groups - 1))] = 0
    by_name[kind.reader].write(weight)
    for name, own in kind.rows(kind.groups - 1).items() if rows else ():
        changed = kept[name].clone()
        changed[own] = 0
        by_name[name].write(changed)
    found = model(ids, use_cache=False).logits.clone()
    for name, weight in kept.items():
        by_name[name].write(weight)
    return found


def test_a_family_whose_units_cannot_be_told_is_refused(tmp_path, store, monkeypatch):
    monkeypatch.setattr(_survey, "units", lambda *_: ())  # a block in which no rows feed columns of their own
    folder = save_tiny(tmp_path / "falcon")
    make("Falcon").save_pretrained(folder)
    with pytest.raises(KickError, match="no channels or heads can be told"):
        made(biased_builder(store, folder), "width@0.5")


@torch.no_grad()
def test_width_drops_the_weakest_whole_and_no_more_than_asked(store, tmp_path):
    folder, model = save_tiny(tmp_path / "model"), tiny_llama()
    idle = [3, 50, 77]
    decoder_blocks(model)[1].mlp.down_proj.weight[:, idle] *= 1e-4
    model.save_pretrained(folder)
    builder = open_builder(store, folder)
    card, _ = made(builder, "width@0.3")
    assert 0.28 < card.sparsity <= 0.3
    block = decoder_blocks(builder.opened.model)[1]
    gone = (block.mlp.down_proj.weight == 0).all(0).nonzero().flatten().tolist()
    assert set(idle) <= set(gone)
    for feeder in (block.mlp.gate_proj, block.mlp.up_proj):
        assert (feeder.weight == 0).all(1).nonzero().flatten().tolist() == gone
    kept, had = card.plan["kept"]["1.mlp.down_proj"]
    assert had == 128 and kept == 128 - len(gone)
    assert all(1 <= left <= all_ for left, all_ in card.plan["kept"].values())


def test_both_ways_take_the_better_one_at_every_step(store, deep_folder):
    builder = open_builder(store, deep_folder)
    card, _ = made(builder, "mop@0.6")
    steps = card.plan["steps"]
    for step in steps:
        ways = {name: step[name] for name in ("depth", "width") if name in step}
        assert step["took"] == min(ways, key=ways.get)
    assert 0.59 < card.sparsity <= 0.6
    assert sum(step["took"] == "depth" for step in steps) == len(card.plan["blocks"])
    with pytest.raises(BadRequest, match="its objective is perplexity or a task"):
        made(builder, "mop@0.5,objective=error")


def test_what_is_gone_twice_counts_once():
    from kick_core.artifacts.planners._survey import Unit
    from kick_core.artifacts.planners._units import Units

    kind = Units("mlp.down_proj", 4, 4, ())
    found = Survey(weights={0: 100, 1: 100})
    in_both = [Unit(0, kind, 1, 0.1, 30), Unit(1, kind, 2, 0.1, 30)]
    assert freed(([], in_both), found) == 60
    assert freed(([0], in_both), found) == 130


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("wanda@2:4,alloc=search", "for a ratio"),
        ("depth@0.5,alloc=search", "for a ratio of single weights"),
        ("depth@2:4", "depth@0.5"),
        ("wanda@0.5,objective=perplexity", "without alloc=search"),
        (f"{SEARCH},search_steps=4", "says nothing with wanda and objective=error"),
        (f"{SEARCH},objective=perplexity,search_examples=50", "search_examples"),
        (f"{SEARCH},objective=perplexity,search_steps=0", "search_steps=0"),
        (f"{SEARCH},objective=factoid_qa,search_examples=5", "at least 20"),
        (f"{SEARCH},objective=factoid_qa,search_data=mine", "mine"),
        (f"{SEARCH},objective=7", "a str is expected"),
        ("mop@0.5,search_steps=4", "says nothing with mop"),
        ("mix@4bit", "mix@4.5bpw"),
        ("gptq@4.5bpw", "gptq@4bit"),
        ("depth@0.5+gptq@4bit", "made alone"),
        ("mix@0.5bpw", "outside 1..32"),
        ("mix@4bpw,choices=gptq@4bit", "needs two"),
        ("mix@4bpw,choices=gptq@4bit/depth@0.5", "looks at the whole model itself"),
        ("mix@4bpw,choices=gptq@4bit/nothing@0.5", "unknown method 'nothing'"),
    ],
)
def test_refusals_name_the_fault(text, named):
    with pytest.raises(BadRequest, match=named):
        methods.resolve(parse(text))


def test_an_unknown_objective_is_refused_before_anything_is_opened():
    from kick_core.sweeps.request import SweepJob

    with pytest.raises(BadRequest, match="Did you mean 'factoid_qa'"):
        SweepJob("nowhere", (f"{SEARCH},objective=factoid",)).parsed()
    with pytest.raises(BadRequest, match="or fewer"):
        SweepJob("nowhere", (f"{SEARCH},objective=instructions",)).parsed()


def test_one_matrix_alone_is_no_model():
    for text in (SEARCH, "depth@0.5", "mix@4bpw"):
        with pytest.raises(BadRequest, match="looks at the whole model"):
            compress_matrix(torch.ones(4, 4), torch.ones(1, 2, 4), text)
        with pytest.raises(BadRequest, match="looks at the whole model"):
            list(compress(tiny_llama(), text, token_ids()))


def test_text_forms_and_keys():
    mix = parse("mix@4.5bpw,choices=sparsegpt@2:4+gptq@4bit/gptq@3bit")
    assert parse(mix.text) == mix and mix.then is None
    assert methods.payload(mix)["choices"][0]["then"]["method"] == "gptq"
    assert methods.payload(parse(SEARCH))["search"] == methods.SEARCH_VERSION
    assert "search" not in methods.payload(parse("wanda@0.5,alloc=owl"))
    assert methods.resolve(parse("mop@0.5")).options == (("objective", "perplexity"),)
