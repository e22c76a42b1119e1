"""SparseGPT and GPTQ against the published code's results, closed forms, and the methods they grow out of."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import kick_core
from kick_core import compress_matrix
from kick_core.errors import BadRequest, KickError
from kick_core.methods import moved
from kick_core.methods.solve import inverse_factor
from tests.golden import GOLDEN
from tests.methods.test_methods import output_error, problem


def gptq_text(bits, group, act, sym):
    return f"gptq@{bits}bit,group={group},sym={str(sym).lower()},act_order={str(act).lower()}"


def test_sparsegpt_matrix_by_matrix(device):
    golden = load_file(GOLDEN / "layers.safetensors", device=device)
    cases = json.loads((GOLDEN / "layers.json").read_text())["cases"]
    for case in cases:
        weight, inputs = golden[f"{case['key']}.W"], golden[f"{case['key']}.X"]
        for goal in (*map(str, case["ratios"]), "1:2", "2:4", "4:8"):
            wanted = golden[f"{case['key']}.sparsegpt.{goal}"]
            found = compress_matrix(weight, inputs, f"sparsegpt@{goal}")
            assert ((found.weight == 0) == (wanted == 0)).float().mean() >= 0.999
            ratio = output_error(weight, found.weight, inputs) / output_error(weight, wanted, inputs)
            assert abs(ratio - 1) < 0.01, goal
            if ":" in goal:
                assert torch.allclose(found.weight, wanted, atol=1e-5)


def test_gptq_matrix_by_matrix(device):
    golden = load_file(GOLDEN / "layers.safetensors", device=device)
    stats = 0
    for name, wanted in golden.items():
        case, _, rest = name.partition(".")
        if not rest.startswith("gptq"):
            continue
        bits, group, act, sym = (part.lstrip("bgactsym") for part in rest.split(".")[1:])
        recipe = gptq_text(bits, group, act == "1", sym == "1")
        weight, inputs = golden[f"{case}.W"], golden[f"{case}.X"]
        found = compress_matrix(weight, inputs, recipe)
        step = found.scales.index_select(1, found.groups.long())
        assert ((found.weight - wanted).abs() < step / 2).float().mean() >= 0.995, recipe
        ratio = output_error(weight, found.weight, inputs) / output_error(weight, wanted, inputs)
        assert abs(ratio - 1) < 0.01, recipe
        stats += 1
    assert stats == 32


@pytest.mark.parametrize("case", ["sparsegpt.0.5", "sparsegpt.2:4", "gptq.b4.g32.sym0", "gptq.b3.g32.sym0"])
def test_through_the_whole_model(device, case):
    folder = GOLDEN / "tiny-llama"
    golden = load_file(folder / "pipeline.safetensors", device=device)
    method, goal = case.split(".", 1)
    recipe = f"sparsegpt@{goal}" if method == "sparsegpt" else gptq_text(goal[1], 32, False, False)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval().to(device)
    list(kick_core.compress(model, recipe, golden["calibration_ids"].long()))
    first_block = {n: t for n, t in golden.items() if n.startswith(f"{case}/model.layers.0.")}
    assert len(first_block) == 7
    for name, wanted in first_block.items():
        weight = model.get_parameter(name.split("/")[1])
        if method == "sparsegpt":
            assert ((weight == 0) == (wanted == 0)).float().mean() >= 0.999, name
        else:
            assert torch.isclose(weight, wanted, atol=1e-5).float().mean() >= 0.995, name
    with torch.no_grad():
        ids = golden["eval_ids"].long()
        found = float(model(ids, labels=ids).loss.exp())
    told = json.loads((folder / "pipeline.json").read_text())["cases"][case]["ppl_on_eval_ids"]
    assert found == pytest.approx(told, rel=5e-3)


def damped(inputs, damp=0.01):
    rows = inputs.reshape(-1, inputs.shape[-1]).double()
    gram = rows.T @ rows
    return gram + damp * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)


def on(device, weight, inputs, recipe):
    """Compressed on a device, the result on the CPU."""
    return moved(compress_matrix(weight.to(device), inputs.to(device), recipe), "cpu")


def test_one_removed_weight_leaves_the_least_squares_solution(device):
    """With one weight gone, everything to its right is the exact minimiser of the (damped) output error."""
    weight, inputs = problem(rows=1, cols=12, tokens=20)
    found = on(device, weight, inputs, "sparsegpt@0.09")
    (gone,) = (found.weight[0] == 0).nonzero().flatten().tolist()
    gram = damped(inputs)
    free = torch.arange(gone + 1, 12)
    removed = weight[0, gone].double()
    # minimise over d: (d_free, -removed at gone) in the norm of the Gram matrix
    best = torch.linalg.solve(gram[free][:, free], gram[free, gone] * removed)
    assert torch.equal(found.weight[0, :gone], weight[0, :gone])
    assert torch.allclose(found.weight[0, free].double(), weight[0, free].double() + best, atol=1e-4)


def test_gptq_on_two_columns_is_what_pen_and_paper_say(device):
    weight, inputs = problem(rows=5, cols=2, tokens=20)
    found = on(device, weight, inputs, "gptq@3bit,group=-1")
    gram = damped(inputs)
    rounded = found.weight[:, 0].double()
    moved = weight[:, 1].double() + (weight[:, 0].double() - rounded) * gram[0, 1] / gram[1, 1]
    codes = torch.round(moved / found.scales[:, 0] + found.zeros[:, 0]).clamp(0, 7)
    assert torch.equal(found.codes[:, 1].double(), codes)


FLAT = torch.eye(64)[None]


def test_flat_statistics_reduce_to_the_simpler_method():
    weight, _ = problem()
    plain, grown = (compress_matrix(weight, FLAT, f"{name}@0.5") for name in ("magnitude", "sparsegpt"))
    assert torch.equal(plain.mask, grown.mask) and torch.allclose(plain.weight, grown.weight, atol=1e-6)
    for options in ("", ",act_order=true,static_groups=true", ",group=-1", ",sym=false"):
        simple = "rtn@4bit,group=32" + options.replace(",act_order=true,static_groups=true", "")
        simple = simple.replace(",group=32,group=-1", ",group=-1")
        full = ("gptq@4bit,group=32" + options).replace(",group=32,group=-1", ",group=-1")
        assert torch.allclose(
            compress_matrix(weight, FLAT, simple).weight, compress_matrix(weight, FLAT, full).weight, atol=1e-6
        ), options


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("sparsegpt@0.5", "magnitude@0.5"),
        ("sparsegpt@0.5", "wanda@0.5"),
        ("sparsegpt@2:4", "wanda@2:4"),
        ("gptq@3bit,group=32", "rtn@3bit,group=32"),
        ("gptq@2bit,group=32", "rtn@2bit,group=32"),
        ("gptq@2bit,group=32,mse=true", "gptq@2bit,group=32"),
        ("gptq@3bit,group=-1,act_order=true", "rtn@3bit,group=-1"),
    ],
)
def test_less_output_error_on_correlated_inputs(better, worse):
    errors = []
    for recipe in (better, worse):
        total = 0.0
        for seed in range(4):
            weight, inputs = problem(rows=32, cols=128, tokens=120, seed=seed)
            total += output_error(weight, compress_matrix(weight, inputs, recipe).weight, inputs)
        errors.append(total)
    assert errors[0] < errors[1]


def test_dead_inputs_are_dropped_and_counted():
    weight, inputs = problem()
    inputs[..., 5] = 0
    found = compress_matrix(weight, inputs, "sparsegpt@0.25")
    assert (found.weight[:, 5] == 0).all()
    assert int((~found.mask).sum()) == weight.numel() // 4
    assert (compress_matrix(weight, inputs, "gptq@4bit").weight[:, 5] == 0).all()


def test_static_scales_look_at_living_inputs_only():
    """A dead input's weight goes, so it may not stretch its group's scale; a row's scale is found before it goes."""
    weight, inputs = problem()
    inputs[..., 5] = 0
    tame, wild = weight.clone(), weight.clone()
    tame[:, 5], wild[:, 5] = 0, 100.0
    found = [compress_matrix(w, inputs, "gptq@4bit,group=32,static_groups=true") for w in (tame, wild)]
    assert torch.equal(found[0].scales, found[1].scales) and torch.equal(found[0].weight, found[1].weight)
    rows = [compress_matrix(w, inputs, "gptq@4bit,group=-1").scales for w in (tame, wild)]
    assert (rows[1] > rows[0]).all()


def test_a_singular_matrix_is_retried_openly_or_refused():
    gram = torch.ones(4, 4)
    gram[0, 0] = 0.5  # indefinite: small damping cannot save it
    factor = inverse_factor(gram, 1e-4)
    assert "damping" in factor.note and torch.isfinite(factor.upper).all()
    negative = -torch.eye(3) * 10
    with pytest.raises(KickError, match="singular"):
        inverse_factor(negative, 0.01)


def test_no_damping_is_retried_with_some():
    gram = torch.ones(8, 8)  # rank one
    found = inverse_factor(gram, 0.0)
    assert found.note.startswith("Cholesky needed damping 0.01") and torch.isfinite(found.upper).all()


def test_factor_is_the_factor_of_the_inverse():
    _, inputs = problem()
    rows = inputs.reshape(-1, 64)
    upper = inverse_factor(rows.T @ rows, 0.01).upper.double()
    assert torch.allclose(upper.T @ upper @ damped(inputs), torch.eye(64, dtype=torch.float64), atol=1e-2)


def test_groups_must_not_straddle_blocks():
    weight, inputs = problem()
    with pytest.raises(BadRequest, match="straddle"):
        compress_matrix(weight, inputs, "sparsegpt@2:4,block=30")


JOINT = ("sparsegpt@2:4+gptq@4bit,group=32", "sparsegpt@0.5+gptq@3bit,group=32", "wanda@2:4+gptq@4bit,group=32",
         "magnitude@0.5+rtn@4bit,group=32", "wanda@4:8+rtn@8bit,group=-1,sym=false")  # fmt: skip


@pytest.mark.parametrize("recipe", JOINT)
def test_joint_recipes_keep_the_mask_and_sit_on_the_grid(recipe):
    weight, inputs = problem(rows=32, cols=128, tokens=120)
    found = compress_matrix(weight, inputs, recipe)
    assert (found.weight[~found.mask] == 0).all()
    assert int((~found.mask).sum()) == weight.numel() // 2
    spread = [part.index_select(1, found.groups.long()) for part in (found.scales, found.zeros)]
    assert torch.equal((found.codes.float() - spread[1]) * spread[0], found.weight)
    if "2:4" in recipe:
        assert (found.mask.reshape(32, -1, 4).sum(-1) == 2).all()


def test_joint_is_better_than_rounding_what_was_pruned():
    errors = {"sparsegpt@2:4+gptq@3bit,group=32": 0.0, "sparsegpt@2:4+rtn@3bit,group=32": 0.0}
    for seed in range(4):
        weight, inputs = problem(rows=32, cols=128, tokens=120, seed=seed)
        for recipe in errors:
            errors[recipe] += output_error(weight, compress_matrix(weight, inputs, recipe).weight, inputs)
    joint, apart = errors.values()
    assert joint < apart


def test_joint_recipes_in_the_wrong_order_are_refused():
    weight, inputs = problem()
    for recipe, named in [
        ("gptq@4bit+sparsegpt@2:4", "first a sparsity"),
        ("wanda@2:4+wanda@2:4", "first a sparsity"),
        ("wanda@2:4+gptq@4bit+rtn@3bit", "first a sparsity"),
        ("sparsegpt@2:4+gptq@4bit,act_order=true", "act_order"),
    ]:
        with pytest.raises(BadRequest, match=named):
            compress_matrix(weight, inputs, recipe)
