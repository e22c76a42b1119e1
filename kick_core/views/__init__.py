"""Stored records as small tables: what the pages draw and what `kick evaluate --json` prints.

No streamlit, no torch. Everything a screen shows comes from here, so pages and command line cannot disagree.

`scores` (one row per model, recipe, task, scorer) · `current` (what is drawn of it) · `headline`, `claims`
(the finding) · `details` (a whole run) · `fidelity`, `texts`, `noise`, `bootstrap`, `until_divergence` (closer to
dense) · `weights`, `preview`, `coverage`, `command` (the cache) · `examples`, `example`, `series`, `by` (answers) ·
`difference`, `heat` (texts) · `window_tokens`, `surprise_by_kind` (tokens) · `families`, `gaps`, `robustness` (several
models) · `recovered`, `recovery_answers` (what came back) · `judgings`, `judge_controls`, `said`, `to_judge` (judges).
"""

from kick_core.methods import MethodCard
from kick_core.stats import Interval
from kick_core.store import Store, default_root, open_store
from kick_core.store.starred import Star, star, starred, unstar
from kick_core.tasks import names as task_names
from kick_core.views.answer_matrix import answer_matrix
from kick_core.views.artifact_tables import (
    POCKETS,
    Preview,
    at_home,
    calibration_of,
    calibration_used,
    command,
    coverage,
    layers,
    left_alone,
    method_groups,
    methods_known,
    models,
    preview,
    weights,
)
from kick_core.views.check import CheckedAnswer, TaskCheck, checks
from kick_core.views.claims import Claim, Part, claims
from kick_core.views.cost import START, seconds
from kick_core.views.example_table import example_texts, exported, samples
from kick_core.views.examples import (
    FLIPS,
    REPEATED,
    RULE,
    Answer,
    Detail,
    Versus,
    apart,
    by,
    csv,
    example,
    examples,
    parquet,
    pick,
    repeated,
    series,
    survival,
    versus,
    words_between,
)
from kick_core.views.families import Kin, Robustness, calibrations, families, gaps, pairs, related, robustness
from kick_core.views.fidelity import BOUNDS, bootstrap, fidelity, texts, until_divergence
from kick_core.views.findings import headline, percent, widest_gap
from kick_core.views.forgetting import Forgetting, by_popularity, forgetting
from kick_core.views.html_report import report
from kick_core.views.judgments import Said, judge_controls, judgings, said, to_judge
from kick_core.views.load import (
    NOT_IN_PACK,
    OFFICIAL,
    POCKET,
    asked_name,
    kind_of_data,
    own_task,
    scorer_rule,
    sparsity_series,
    stamp,
    task_titles,
    unread,
)
from kick_core.views.noise import noise
from kick_core.views.paired import AT_CHANCE, AT_FLOOR
from kick_core.views.recipe_labels import label, label_of, target_label
from kick_core.views.recovery import RULE as RECOVERY_RULE
from kick_core.views.recovery import Answer as RecoveryAnswer
from kick_core.views.recovery import answers as recovery_answers
from kick_core.views.recovery import recovered
from kick_core.views.rescoring import outdated, rescore
from kick_core.views.run_details import context_partner, details
from kick_core.views.run_warnings import warnings
from kick_core.views.scores import (
    DENSE,
    NOT_MEASURED,
    current,
    data_kinds,
    multiplicity,
    protocols,
    scores,
    scores_of,
    verdicts_together,
    way,
)
from kick_core.views.sentences import shown
from kick_core.views.text_diff import Piece, Warm, difference, heat, likeness, repetition
from kick_core.views.text_diff import shared as shared_words
from kick_core.views.token_surprise import Token, surprise_by_kind, window_tokens

__all__ = [
    "AT_CHANCE",
    "AT_FLOOR",
    "BOUNDS",
    "DENSE",
    "FLIPS",
    "NOT_IN_PACK",
    "NOT_MEASURED",
    "OFFICIAL",
    "POCKET",
    "POCKETS",
    "RECOVERY_RULE",
    "REPEATED",
    "RULE",
    "START",
    "Answer",
    "CheckedAnswer",
    "Claim",
    "Detail",
    "Forgetting",
    "Interval",
    "Kin",
    "MethodCard",
    "Part",
    "Piece",
    "Preview",
    "RecoveryAnswer",
    "Robustness",
    "Said",
    "Star",
    "Store",
    "TaskCheck",
    "Token",
    "Versus",
    "Warm",
    "answer_matrix",
    "apart",
    "asked_name",
    "at_home",
    "bootstrap",
    "by",
    "by_popularity",
    "calibration_of",
    "calibration_used",
    "calibrations",
    "checks",
    "claims",
    "command",
    "context_partner",
    "coverage",
    "csv",
    "current",
    "data_kinds",
    "default_root",
    "details",
    "difference",
    "example",
    "example_texts",
    "examples",
    "exported",
    "families",
    "fidelity",
    "forgetting",
    "gaps",
    "headline",
    "heat",
    "judge_controls",
    "judgings",
    "kind_of_data",
    "label",
    "label_of",
    "layers",
    "left_alone",
    "likeness",
    "method_groups",
    "methods_known",
    "models",
    "multiplicity",
    "noise",
    "open_store",
    "outdated",
    "own_task",
    "pairs",
    "parquet",
    "percent",
    "pick",
    "preview",
    "protocols",
    "recovered",
    "recovery_answers",
    "related",
    "repeated",
    "repetition",
    "report",
    "rescore",
    "robustness",
    "said",
    "samples",
    "scorer_rule",
    "scores",
    "scores_of",
    "seconds",
    "series",
    "shared_words",
    "shown",
    "sparsity_series",
    "stamp",
    "star",
    "starred",
    "surprise_by_kind",
    "survival",
    "target_label",
    "task_names",
    "task_titles",
    "texts",
    "to_judge",
    "unread",
    "unstar",
    "until_divergence",
    "verdicts_together",
    "versus",
    "warnings",
    "way",
    "weights",
    "widest_gap",
    "window_tokens",
    "words_between",
]
