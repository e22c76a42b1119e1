"""LLM-KICK's experiments as sweeps: which models, recipes and tasks, with which calibrations.

An experiment is one sweep or several (several calibrations, two models). All run through the same cells as any other
sweep, so what is there is not done again. What the pocket models share with `kick sweep --preset demo` they share in
calibration and numbers of examples too.
"""

from __future__ import annotations

from dataclasses import replace

from kick_core.errors import BadRequest, nearest
from kick_core.spec import Calibration
from kick_core.store import Store
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import AUTO, SweepJob, of_pocket, preset
from kick_core.sweeps.sweep_keys import ModelSizes
from kick_core.tasks import POCKET, paper

PRUNERS = ("magnitude", "wanda", "sparsegpt")
WINDOWS = (1, 4, 16, 64, 128)
"""Calibration windows of the ablation (figure 7). The published Wanda code cannot take more than 128."""

SHOTS = (0, 1, 2, 3, 5)
"""Worked examples before a question (figure 14)."""

NAMES = (
    "table2", "table3", "calibration-size", "small-dense", "k-shot", "disciplines", "perplexity-vs-tasks", "families",
    "recovery",
)  # fmt: skip

FAMILY = ("pocket-11m", "pocket-4m")
"""The models that `families` compares where none is named."""

RECOVERED = ("wanda@0.5", "wanda@2:4", "sparsegpt@0.5", "gptq@3bit")
"""What is recovered, as far as the paper's question reaches: sparsity of two sorts, and few bits."""


def requests(name: str, base: SweepJob, store: Store, small: str | None = None) -> tuple[SweepJob, ...]:
    """The sweeps of an experiment. `base` says the model and how it is asked; `small` is the smaller dense model.

    Raises BadRequest for an unknown experiment, and for models that cannot be compared in it.
    """
    match name:
        case "calibration-size":
            named = replace(base, recipes=_calibrated(), tasks=paper.EXPERIMENTS[name])
            return tuple(replace(named, calibration=replace(base.calibration, windows=n)) for n in WINDOWS)
        case "k-shot":
            return _few_shots(base)
        case "small-dense":
            return _small_dense(base, store, small)
        case "recovery":
            return (_recovery(base),)
        case _ if name in NAMES:
            grid = preset(name, base.model, base.data)
            return (replace(base, recipes=grid.recipes, tasks=grid.tasks),)
    raise nearest(name, NAMES, "experiment")


def base(model: str, data: str = AUTO) -> SweepJob:
    """How an experiment asks a model: the pocket ones as the demo does, others as the paper did (all examples, 128
    windows of C4).
    """
    data = POCKET if data == AUTO else data
    if _is_pocket(model):
        return replace(preset("demo", model), data=data)
    return SweepJob(model, (), calibration=Calibration("c4", windows=128), data=data)


def _calibrated() -> tuple[str, ...]:
    return ("dense", *(f"{method}@{level}" for method in ("wanda", "sparsegpt") for level in ("0.5", "0.7")))


def _recovery(base: SweepJob) -> SweepJob:
    """The paper's open question. The pocket models are trained on text that tells nothing that is asked, and, being
    small, at a higher rate.
    """
    trained = "recover=lora" + (",recover_rate=0.004,recover_text=pocket-unasked" if _is_pocket(base.model) else "")
    recipes = tuple(
        text for recipe in RECOVERED for text in (recipe, f"{recipe},recover=blocks", f"{recipe},{trained}")
    )
    return replace(base, recipes=("dense", *recipes), tasks=paper.EXPERIMENTS["recovery"])


def _is_pocket(model: str) -> bool:
    return of_pocket(model)


def _few_shots(base: SweepJob) -> tuple[SweepJob, ...]:
    if base.data == "pocket":
        raise BadRequest(
            "k-shot needs questions with worked examples before them, which the pocket world has not: ask MMLU with "
            "--data official, or --data DIR for a folder that holds it"
        )
    grid = ("dense", *(f"wanda@{level}" for level in ("0.3", "0.5", "0.6", "0.7")))
    shots_job = replace(base, recipes=grid, tasks=paper.EXPERIMENTS["k-shot"])
    return tuple(replace(shots_job, shots=shots) for shots in SHOTS)


# --- small and dense against large and sparse ------------------------------------------------------------------


def _small_dense(base: SweepJob, store: Store, small: str | None) -> tuple[SweepJob, ...]:
    if small is None:
        if base.model not in ("pocket", "pocket-11m"):
            raise BadRequest("small-dense compares two models: name the smaller one with --small MODEL")
        small = "pocket-4m"
    large = replace(base, recipes=("dense",), tasks=paper.EXPERIMENTS["small-dense"])
    little = replace(large, model=small)
    ratios = equal_ratios(*(_sizes(request, store) for request in (large, little)))
    recipes = tuple(f"{method}@{ratio}" for ratio in ratios for method in PRUNERS)
    return (little, replace(large, recipes=("dense", *recipes)))


def _sizes(request: SweepJob, store: Store) -> ModelSizes:
    known = sweep_keys.recall(store, request) or sweep_keys.remember(store, open_sweep(request, store, plan_only=True))
    return known.model.sizes


def equal_ratios(large: ModelSizes, small: ModelSizes) -> tuple[str, str]:
    """At which sparsity the large model has as many non-zeros, and at which it takes as many bytes, as the small one.

    Everything counts (embeddings too), but only the linears of the blocks can be pruned; a kept weight takes its
    bits, and each prunable one a bit of the mask. Raises BadRequest where pruning cannot do it.
    """
    surplus = large.parameters - small.parameters * small.bits / large.bits
    ratios = (
        (large.parameters - small.parameters) / large.prunable,
        (surplus + large.prunable / large.bits) / large.prunable,
    )
    if not all(0 < ratio < 1 for ratio in ratios):
        raise BadRequest(
            f"a model of {large.parameters:,} weights ({large.prunable:,} of them prunable) cannot be pruned to "
            f"the size of one of {small.parameters:,}: name two models of one family, the smaller with --small"
        )
    non_zeros, size = (f"{ratio:.4f}".rstrip("0") for ratio in ratios)
    return non_zeros, size
