"""The benchmarks' files in their official layouts: tiny ones made on the spot, and a real Llama tokenizer."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

LETTERS = "ABCD"


def mmlu(root: Path, subjects: dict[str, int], *, option: str = "None") -> Path:
    """Hendrycks' CSVs: five dev rows and some test rows a subject. One option is the word None."""
    for split, counts in (("dev", dict.fromkeys(subjects, 5)), ("test", subjects)):
        folder = root / "mmlu" / split
        folder.mkdir(parents=True, exist_ok=True)
        for subject, count in counts.items():
            with open(folder / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(
                    (
                        f"{split} question {n} of {subject},\nwith a break?",
                        "one",
                        option,
                        "three",
                        "four",
                        LETTERS[n % 4],
                    )
                    for n in range(count)
                )
    return root


def freebase(root: Path, split: str, count: int) -> Path:
    """FreebaseQA's JSON: the second parse knows another name, the first answer has two."""
    rows = [
        {
            "Question-ID": f"FreebaseQA-{split}-{n}",
            "RawQuestion": f"Who wrote book {n} of New York?",
            "ProcessedQuestion": f"who wrote book {n}",
            "Parses": [
                {"Parse-Id": "P0", "Answers": [{"AnswersMid": "m.0", "AnswersName": [f"writer {n}", f"w. {n}"]}]},
                {"Parse-Id": "P1", "Answers": [{"AnswersMid": "m.1", "AnswersName": ["someone else"]}]},
            ],
        }
        for n in range(count)
    ]
    (root / f"FreebaseQA-{split}.json").write_text(json.dumps({"Dataset": "FreebaseQA", "Questions": rows}))
    return root


def trivia(root: Path, *, pages: str = "evidence", answers: tuple[str, ...] = ("sunset boulevard",)) -> Path:
    """TriviaQA's layout: one question in both domains, one without evidence."""
    base = root / "triviaqa"
    (base / "qa").mkdir(parents=True)
    for domain in ("web", "wikipedia"):
        (base / pages / domain).mkdir(parents=True)
    (base / pages / "wikipedia" / "page.txt").write_text("The musical Sunset Boulevard opened in 1993.")
    (base / pages / "web" / "hit.txt").write_text("x" * 4000 + " the end")
    first = _question("tc_1", answers, entity=["page.txt"], search=["hit.txt"])
    late = _question("tc_2", ("the end",), entity=[], search=["hit.txt"])
    bare = _question("tc_3", ("nothing",), entity=[], search=[])
    for name, rows in (("web-dev.json", [first, late]), ("wikipedia-dev.json", [first, bare])):
        (base / "qa" / name).write_text(json.dumps({"Data": rows, "Domain": name, "Version": 1.0}))
    return root


def _question(name: str, answers: tuple[str, ...], *, entity: list[str], search: list[str]) -> dict[str, Any]:
    return {
        "QuestionId": name,
        "Question": f"What is {name}?",
        "Answer": {"NormalizedAliases": list(answers), "Value": answers[0] if answers else "", "Aliases": []},
        "EntityPages": [{"Filename": file, "Title": file} for file in entity],
        "SearchResults": [{"Filename": file, "Rank": 0} for file in search],
    }


def stories(root: Path, words: dict[str, tuple[str, int]]) -> Path:
    """`.story` files: id -> (folder, number of words), two highlights each."""
    for name, (place, count) in words.items():
        folder = root / "cnn_dailymail" / place
        folder.mkdir(parents=True, exist_ok=True)
        half = " ".join(f"word{n}" for n in range(count // 2))
        rest = " ".join(f"more{n}" for n in range(count - count // 2))
        text = f"{half}\n\n{rest}\n\n@highlight\n\nGold one of {name}\n\n@highlight\n\nGold two\n"
        (folder / f"{name}.story").write_text(text)
    return root


def llama_tokenizer(model: Path) -> Any:
    """A real SentencePiece Llama tokenizer, read without the sentencepiece package."""
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

    pieces = import_protobuf().ModelProto()
    pieces.ParseFromString(model.read_bytes())
    vocabulary = {piece.piece: number for number, piece in enumerate(pieces.pieces)}
    merges = generate_merges(vocabulary, {piece.piece: piece.score for piece in pieces.pieces})
    return LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=False, add_bos_token=True)
