"""Stored records as small tables: what the pages draw and what `kick evaluate --json` prints.

No streamlit, no torch. Everything a screen shows comes from here, so pages and command line cannot disagree.

`scores` (one row per model, recipe, task, scorer) · `current` (what is drawn of it) · `headline`, `claims`
(the finding) · `fidelity`, `texts`, `noise`, `bootstrap`, `until_divergence` (closer to dense) · `weights`,
`preview`, `coverage` (the cache) · `examples`, `example`, `strip`, `by` (answers) · `difference`, `heat` (texts) ·
`judgings`, `judge_controls`, `said`, `to_judge` (judges).
"""

from kick_core.store import Store, default_root, open_store
from kick_core.views.closeness import BOUNDS, bootstrap, fidelity, texts, until_divergence
from kick_core.views.examples import (
    FLIPS,
    RULE,
    Answer,
    Detail,
    Versus,
    by,
    csv,
    example,
    examples,
    parquet,
    pick,
    provided,
    strip,
    survival,
    versus,
)
from kick_core.views.findings import (
    IN_CONTEXT,
    KNOWLEDGE,
    Claim,
    claims,
    headline,
    percent,
)
from kick_core.views.judgments import Said, judge_controls, judgings, said, to_judge
from kick_core.views.made import (
    POCKETS,
    Preview,
    at_home,
    calibration_of,
    calibration_used,
    coverage,
    layers,
    methods_known,
    models,
    preview,
    weights,
)
from kick_core.views.naming import label, rung
from kick_core.views.noise import noise
from kick_core.views.report import report
from kick_core.views.runs import asked_name, ladder, stamp, task_titles, unread
from kick_core.views.scores import DENSE, NOT_MEASURED, current, scores
from kick_core.views.words import Piece, Warm, difference, heat, repetition

__all__ = [
    "BOUNDS",
    "DENSE",
    "FLIPS",
    "IN_CONTEXT",
    "KNOWLEDGE",
    "NOT_MEASURED",
    "POCKETS",
    "RULE",
    "Answer",
    "Claim",
    "Detail",
    "Piece",
    "Preview",
    "Said",
    "Store",
    "Versus",
    "Warm",
    "asked_name",
    "at_home",
    "bootstrap",
    "by",
    "calibration_of",
    "calibration_used",
    "claims",
    "coverage",
    "csv",
    "current",
    "default_root",
    "difference",
    "example",
    "examples",
    "fidelity",
    "headline",
    "heat",
    "judge_controls",
    "judgings",
    "label",
    "ladder",
    "layers",
    "methods_known",
    "models",
    "noise",
    "open_store",
    "parquet",
    "percent",
    "pick",
    "preview",
    "provided",
    "repetition",
    "report",
    "rung",
    "said",
    "scores",
    "stamp",
    "strip",
    "survival",
    "task_titles",
    "texts",
    "to_judge",
    "unread",
    "until_divergence",
    "versus",
    "weights",
]
