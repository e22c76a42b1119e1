"""Tasks for lm-evaluation-harness: this package's questions, in its prompts, as files that the harness reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HEAD = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
"""

KINDS = {
    "choose": """doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{gold}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}]
""",
    "generate": """doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{golds[0]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: {new_tokens}, do_sample: false}}
process_results: !function scoring.text
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
  - {{metric: rouge_1, aggregation: mean, higher_is_better: true}}
  - {{metric: rouge_2, aggregation: mean, higher_is_better: true}}
  - {{metric: rouge_l, aggregation: mean, higher_is_better: true}}
""",
    "perplexity": """doc_to_text: ""
doc_to_target: "{{{{page}}}}"
process_results: !function scoring.page
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
""",
}
"""By the kind of a task here; the harness's own metrics, its own rule of exact match."""

_OUTPUT = {"choose": "multiple_choice", "generate": "generate_until", "perplexity": "loglikelihood_rolling"}

_SCORING = '''"""Run by the harness: its exact match over all golds, rouge_score, its perplexity of a page."""

from lm_eval.api.metrics import exact_match_hf_evaluate
from rouge_score.rouge_scorer import RougeScorer

ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
SCORER = RougeScorer(list(ROUGE.values()), use_stemmer=True)


def text(doc, results):
    said = results[0].strip()
    same = [
        exact_match_hf_evaluate([said], [gold], ignore_case=True, ignore_punctuation=True)["exact_match"]
        for gold in doc["golds"]
    ]
    scores = [SCORER.score(gold, said) for gold in doc["golds"]]
    rouge = {name: max(score[key].fmeasure for score in scores) for name, key in ROUGE.items()}
    return {"exact_match": float(max(same)), **rouge}


def page(doc, results):
    (loglikelihood,) = results
    return {
        "word_perplexity": (loglikelihood, doc["words"]),
        "byte_perplexity": (loglikelihood, doc["bytes"]),
        "bits_per_byte": (loglikelihood, doc["bytes"]),
    }
'''


def write(folder: Path, name: str, kind: str, rows: Sequence[Mapping[str, Any]], new_tokens: int = 0) -> None:
    """Write one task and its questions into a folder for `--include_path`."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (_HEAD + KINDS[kind]).format(name=name, file=file, kind=_OUTPUT[kind], new_tokens=new_tokens)
    (folder / f"{name}.yaml").write_text(text)
    (folder / "scoring.py").write_text(_SCORING)
