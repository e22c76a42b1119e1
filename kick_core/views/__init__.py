"""Stored records as small tables: what the pages draw and what `kick evaluate --json` prints.

No streamlit, no torch. Everything a screen shows comes from here, so pages and command line cannot disagree.

`scores` (one row per model, recipe, task, scorer) · `current` (what is drawn of it) · `headline`, `claims`
(the finding) · `weights`, `preview`, `coverage` (the cache) · `examples`, `example`, `strip`, `by` (answers) ·
`difference`, `heat` (texts).
"""

from kick_core.store import Store, default_root, open_store
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
from kick_core.views.report import report
from kick_core.views.runs import asked_name, ladder, stamp, task_titles, unread
from kick_core.views.scores import DENSE, NOT_MEASURED, current, scores
from kick_core.views.words import Piece, Warm, difference, heat, repetition

__all__ = [
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
    "Store",
    "Versus",
    "Warm",
    "asked_name",
    "at_home",
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
    "headline",
    "heat",
    "label",
    "ladder",
    "layers",
    "methods_known",
    "models",
    "open_store",
    "parquet",
    "percent",
    "pick",
    "preview",
    "provided",
    "repetition",
    "report",
    "rung",
    "scores",
    "stamp",
    "strip",
    "survival",
    "task_titles",
    "unread",
    "versus",
    "weights",
]
