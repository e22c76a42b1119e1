"""The scorer and generator: token ids in, log-probabilities or token ids out.

An example's output must not depend on which examples it is asked with: runs are extended, stopped, resumed and
shared out, and dense and compressed models have to be asked alike. In half precision the last bits of a number
depend on the shape of the forward and on the place in the row, but not on what stands in the other rows. So:

- **Padded batches** (scoring where packs are not possible): prompts are padded on the left to one of few lengths,
  which depend on the prompt alone. The number of rows is fixed too, and the last batch is filled up with copies,
  wherever bits depend on it (`rows_matter`); where they do not, short batches stay short. Where a library has other
  kernels for a handful of rows, no more than those are filled (`least_rows`).
- **Slots** (free text): every row has its own length in a cache of 2^n columns, so prompts of many lengths share a
  batch; which cache and how many rows follows from a prompt's length alone, and slots whose texts have ended take the
  next prompts. Where the number of rows does not matter finished rows leave instead, and prompts are read side by
  side, behind beginnings that the caller names for the whole task.
- **Packs** (options): the caller hands over *all* prompts of a span of the task in their fixed order and says which of
  them it wants. Who shares a prefix with whom, and which place in which row a question gets, follows from the whole
  list; rows without a wanted question are not run. So a question has the same prefix, place and row whatever the
  limit was, before and after a resume, for dense and every variant. `plan_hash` names that layout.

In float32 the promise is 1e-5 and the same text; in half precision it is the same bits for one plan and one machine.
Out of memory: the rows of that batch are halved until it fits, and `Plan.notes` says so.
"""

from kick_core.engine.batching import (
    Batch,
    BatchPolicy,
    Ids,
    batches,
    half_slowdown,
    plan_for,
    products_per_second,
    rows_matter,
)
from kick_core.engine.generation import Sampling, generate, stopper
from kick_core.engine.interface import Engine, own
from kick_core.engine.packing import Layout, pack_layout
from kick_core.engine.padded import OptionScores
from kick_core.engine.refilling import Generated, Stopper
from kick_core.engine.scoring import plan_hash, score_options, sees_windows, why_padded
from kick_core.engine.windows import (
    GivenScores,
    TextScore,
    WindowScores,
    given_scores,
    text_logprobs,
    window_logprobs,
    window_scores,
)

__all__ = [
    "Batch",
    "BatchPolicy",
    "Engine",
    "Generated",
    "GivenScores",
    "Ids",
    "Layout",
    "OptionScores",
    "Sampling",
    "Stopper",
    "TextScore",
    "WindowScores",
    "batches",
    "generate",
    "given_scores",
    "half_slowdown",
    "own",
    "pack_layout",
    "plan_for",
    "plan_hash",
    "products_per_second",
    "rows_matter",
    "score_options",
    "sees_windows",
    "stopper",
    "text_logprobs",
    "why_padded",
    "window_logprobs",
    "window_scores",
]
