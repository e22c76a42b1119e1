"""What LLM-KICK printed, to stand beside what is measured here.

Jaiswal, Gan, Du, Zhang, Wang, Yang: "Compressing LLMs: The Truth Is Rarely Pure and Never Simple", ICLR 2024,
arXiv 2310.01382, tables 2 and 3, section 4 and figures 1, 3 and 7. The paper prints no interval for any of
them. Figures have no printed values, so what they show stands as the claim in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PERPLEXITY, FREEBASE_QA, MMLU = "perplexity", "factoid_qa", "multiple_choice"
FREEBASE_QA_QUANTIZED = "factoid_qa_quantized"
CLOSED_BOOK, OPEN_BOOK = "retrieval_qa_closed", "retrieval_qa_open"
SUMMARIES, INSTRUCTIONS = "summarization", "instructions"
"""The paper's settings by the names of the tasks that ask them here. No other file names a task."""

EXPERIMENTS = {
    "table2": (FREEBASE_QA, FREEBASE_QA_QUANTIZED, MMLU, OPEN_BOOK, INSTRUCTIONS),
    "table3": (FREEBASE_QA, MMLU, SUMMARIES, INSTRUCTIONS),
    "calibration-size": (MMLU,),
    "small-dense": (MMLU, FREEBASE_QA),
    "k-shot": (MMLU,),
    "disciplines": (MMLU,),
    "perplexity-vs-tasks": (PERPLEXITY, FREEBASE_QA, MMLU, CLOSED_BOOK),
    "families": (PERPLEXITY, FREEBASE_QA, MMLU, CLOSED_BOOK, OPEN_BOOK),
    "recovery": (PERPLEXITY, FREEBASE_QA, CLOSED_BOOK, OPEN_BOOK),
}
"""Which tasks each experiment asks."""

SOURCE = "LLM-KICK (Jaiswal et al., ICLR 2024, arXiv 2310.01382)"
MODEL = "Vicuna-7B v1.3"


@dataclass(frozen=True, slots=True)
class Printed:
    """One printed number.

    Attributes:
        task: the task that asks the same here.
        measure: what was printed, in words.
        recipe: the recipe that stands for the paper's column.
        value: the number.
        dense: the uncompressed model's in the same table; None where it prints none.
        bucket: the only bucket of examples that it counts; "": all.
    """

    task: str
    measure: str
    recipe: str
    value: float
    dense: float | None
    bucket: str = ""

    @property
    def kept(self) -> float | None:
        """The share of the dense model's number."""
        return self.value / self.dense if self.dense else None


_LEVELS = ("0.1", "0.2", "0.3", "0.4", "0.5")

_TABLE3 = {
    (FREEBASE_QA, "FreebaseQA, exact match %", 65.44): {
        "magnitude": (61.74, 66.53, 60.84, 42.06, 13.99),
        "sparsegpt": (63.84, 62.44, 58.54, 55.54, 42.86),
        "wanda": (63.34, 65.23, 61.24, 58.24, 44.66),
    },
    (MMLU, "MMLU, accuracy", 0.471): {
        "magnitude": (0.466, 0.455, 0.422, 0.339, 0.050),
        "sparsegpt": (0.470, 0.460, 0.437, 0.395, 0.308),
        "wanda": (0.469, 0.460, 0.455, 0.425, 0.386),
    },
    (SUMMARIES, "long stories, coherence by GPT-4 (1-10)", 5.883): {
        "magnitude": (6.112, 5.855, 5.567, 4.329, 1.233),
        "sparsegpt": (6.033, 5.533, 6.067, 5.567, 5.067),
        "wanda": (6.0, 5.783, 5.933, 5.267, 5.033),
    },
    (INSTRUCTIONS, "instruction following by GPT-4 (1-10)", 7.763): {
        "magnitude": (7.567, 7.621, 7.201, 6.208, 3.308),
        "sparsegpt": (7.645, 7.50, 7.188, 6.905, 6.206),
        "wanda": (7.731, 7.546, 7.202, 7.071, 6.838),
    },
}

TABLE3 = tuple(
    Printed(task, measure, recipe, value, dense, "large" if task == SUMMARIES else "")
    for (task, measure, dense), methods in _TABLE3.items()
    for recipe, value in (
        ("dense", dense),
        *(
            (f"{method}@{level}", value)
            for method, values in methods.items()
            for level, value in zip(_LEVELS, values, strict=True)
        ),
    )
)

_TABLE2 = {
    (FREEBASE_QA, "FreebaseQA, exact match %"): (60.14, 60.31, 61.02),
    (MMLU, "MMLU, accuracy %"): (47.10, 47.18, 47.82),
    (OPEN_BOOK, "TriviaQA open book, exact match %"): (75.55, 75.89, 75.91),
    (INSTRUCTIONS, "instruction following by GPT-4 (its scale is not Table 3's)"): (9.74, 9.72, 9.81),
}
_EIGHT_BITS = ("gptq@8bit,sym=false", "awq@8bit", "int8_outlier@8bit")
TABLE2 = tuple(
    Printed(task, measure, recipe, value, None)
    for (task, measure), values in _TABLE2.items()
    for recipe, value in zip(_EIGHT_BITS, values, strict=True)
)

TABLE2_ITS_PROMPT = tuple(
    replace(number, task=FREEBASE_QA_QUANTIZED, measure=f"{number.measure}, in the GPTQ script's own words")
    for number in TABLE2
    if number.task == FREEBASE_QA
)
"""Table 2's FreebaseQA beside what is measured with the prompt that the paper used for quantized models."""

SMALL_DENSE = {"dense": 46.7, "magnitude": 31.7, "wanda": 45.3, "sparsegpt": 46.3}
"""Section 4: MMLU % of the dense 7B, and of the 13B pruned "to exactly 7B" (46.16 %) by each method."""

CLAIMS = {
    "table2": ("At 8 bits GPTQ, AWQ and LLM.int8() differ little; dense has no column in the table.",),
    "table3": (
        "No pruner matches dense beyond 20 to 30 %; Wanda and SparseGPT hold longer than magnitude from 40 % on.",
    ),
    "calibration-size": (
        "Figure 7 (0-shot MMLU at 50 and 70 %): SparseGPT improves with the number of calibration samples, Wanda is "
        "flat; at 70 % Wanda recovers nothing while SparseGPT benefits. The figure prints no values.",
    ),
    "small-dense": (
        "Section 4 (MMLU): a dense 7B has 46.7 %; a 13B pruned to as many weights has 31.7 (magnitude), 45.3 (Wanda) "
        "and 46.3 (SparseGPT): the small dense model is as good or better.",
        '46.16 % is (13 - 7) / 13. Equal non-zeros would need 49.48 % of the prunable weights: the paper\'s "7B" keeps '
        "7.16 G weights, and with their mask they take 15.9 GB where the dense 7B takes 13.5 GB.",
    ),
    "k-shot": (
        "Figure 14 (MMLU, Wanda): the number of shots matters little when dense and much at high sparsity; 2 to 3 "
        "shots are enough. The figure prints no values.",
    ),
    "disciplines": (
        "Figure 3 (MMLU): matching to 20 to 40 % sparsity, never for N:M; humanities and social sciences fall more "
        "than STEM. The figure prints no values.",
    ),
    "perplexity-vs-tasks": (
        'Figure 1: perplexity shows "no significant variation up to 45 to 60 %" where knowledge is lost at 25 to 30 %. '
        "The figure prints no values.",
    ),
    "families": (
        "The paper measures Vicuna 7B and 13B, which are tuned for dialogue, and leaves other families to later work: "
        "it prints nothing to compare with.",
    ),
    "recovery": (
        'The paper compresses "without fine-tuning" and leaves LoRA and QLoRA to future work: does knowledge come '
        "back, or perplexity alone? Nothing is printed.",
    ),
}
"""What the paper says of each experiment, in its words or ours."""

DIFFERENCES = (
    ((MMLU,), "multiple choice: the most likely option; the paper's code reads the last character it generates"),
    (
        (SUMMARIES, INSTRUCTIONS),
        "summaries and instructions: facts kept and checks met; the paper's are GPT-4's marks from 1 to 10",
    ),
    ((FREEBASE_QA,), "an empty answer is wrong here; the paper's code counts it as right"),
    (
        (FREEBASE_QA_QUANTIZED,),
        'the paper asks quantized models FreebaseQA without a line break before "The answer is": asked both ways here',
    ),
)
"""What is not as in the paper, by the tasks that it concerns."""
