"""How good a dense model is on the held-out data: the numbers of the model card.

Greedy decoding gives the gold answer exactly when every gold token is the most likely one after the tokens before
it, so short answers need one forward pass and no generation. Prompts are padded on the right; a causal model cannot
see what comes later, so no mask is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kick_core.pocket import split_documents
from tools.pocket import prompts

Model = Callable[[Tensor], Tensor]
Row = dict[str, object]
BATCH_TOKENS = 24_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Wilson interval."""

    hits: float
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        z, share = 1.959964, self.value
        middle = (share + z * z / (2 * self.n)) / (1 + z * z / self.n)
        half = z / (1 + z * z / self.n) * math.sqrt(share * (1 - share) / self.n + z * z / (4 * self.n**2))
        return middle - half, middle + half


@dataclass(frozen=True, slots=True)
class Examiner:
    """A model with its tokenizer, ready to be asked."""

    model: Model
    tokenizer: Tokenizer
    device: torch.device

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=begin).ids

    def logits(self, rows: Sequence[list[int]]) -> Tensor:
        """[rows, longest, vocabulary], computed in one batch."""
        longest = max(len(row) for row in rows)
        padded = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = torch.tensor(row)
        with torch.inference_mode():
            return self.model(padded.to(self.device))

    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each (prompt, continuation): log-probability, and whether greedy decoding would give it."""
        encoded = [(self.encode(prompt), self.encode(text, begin=False)) for prompt, text in pairs]
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number][0]))
        results: list[tuple[float, bool]] = [(0.0, False)] * len(encoded)
        for batch in batches(order, [len(head) + len(tail) for head, tail in encoded]):
            scores = self.logits([encoded[number][0] + encoded[number][1] for number in batch])
            for logits, number in zip(scores, batch, strict=True):
                head, tail = encoded[number]
                there = logits[len(head) - 1 : len(head) + len(tail) - 1].float()
                gold = torch.tensor(tail, device=there.device)
                chosen = there.log_softmax(-1).gather(1, gold[:, None]).sum()
                results[number] = (float(chosen), bool((there.argmax(-1) == gold).all()))
        return results

    def generate(self, texts: Sequence[str], most: int) -> list[str]:
        """Greedy, without a cache: slower than need be, and with nothing that could differ from training."""
        rows = [self.encode(text) for text in texts]
        stops = {self.tokenizer.token_to_id(name) for name in (prompts.END, prompts.END_OF_TURN)}
        answers: list[list[int]] = [[] for _ in rows]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        for batch in batches(order, [len(row) + most for row in rows]):
            running = list(batch)
            for _ in range(most):
                scores = self.logits([rows[number] + answers[number] for number in running])
                ends = [len(rows[number]) + len(answers[number]) - 1 for number in running]
                best = scores[torch.arange(len(running)), torch.tensor(ends)].argmax(-1).tolist()
                for number, token in zip(running, best, strict=True):
                    answers[number].append(token)
                running = [number for number in running if answers[number][-1] not in stops]
                if not running:
                    break
        return [self.tokenizer.decode([token for token in answer if token not in stops]) for answer in answers]


def batches(order: list[int], lengths: list[int]) -> list[list[int]]:
    """Neighbours in `order` whose padded size stays within the limit."""
    groups: list[list[int]] = [[]]
    for number in order:
        group = groups[-1]
        if group and (len(group) + 1) * max(lengths[number], *(lengths[other] for other in group)) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(number)
    return groups


def rows_of(text: str) -> list[Row]:
    return [json.loads(line) for line in text.splitlines()]


def answered(examiner: Examiner, rows: list[Row], template: str, ending: str) -> Rate:
    pairs = [
        (template.format(question=row["question"], passage=row.get("passage")), f" {row['answers'][0]}{ending}")  # type: ignore[index]
        for row in rows
    ]
    return Rate(sum(exact for _, exact in examiner.continuations(pairs)), len(rows))


def chosen(examiner: Examiner, rows: list[Row], *, in_words: bool) -> Rate:
    """Multiple choice, zero-shot: the option of highest log-probability."""
    pairs = []
    for row in rows:
        options: list[str] = row["choices"]  # type: ignore[assignment]
        prompt = prompts.CHOICE_HEADER.format(subject=row["subject"])
        prompt += prompts.choice(str(row["question"]), options, in_words=in_words)
        answers = options if in_words else prompts.LETTERS
        pairs += [(prompt, f" {answer}\n") for answer in answers]
    scores = [score for score, _ in examiner.continuations(pairs)]
    best = [max(range(4), key=lambda place: scores[4 * number + place]) for number in range(len(rows))]
    return Rate(sum(place == row["answer"] for place, row in zip(best, rows, strict=True)), len(rows))


def summarised(examiner: Examiner, rows: list[Row]) -> Rate:
    """The share of all key facts that the summaries keep."""
    texts = [prompts.chat(prompts.SUMMARY.format(story=row["story"])) for row in rows]
    kept = total = 0
    for row, answer in zip(rows, examiner.generate(texts, 80), strict=True):
        facts: list[list[str]] = row["facts"]  # type: ignore[assignment]
        total += len(facts)
        kept += sum(any(alias.lower() in answer.lower() for alias in fact) for fact in facts)
    return Rate(kept, total)


def passes(check: dict[str, str | int], answer: str) -> bool:
    value, words = check["value"], len(answer.split())
    match check["kind"]:
        case "contains":
            return str(value).lower() in answer.lower()
        case "not_contains":
            return str(value).lower() not in answer.lower()
        case "starts_with":
            return answer.strip().lower().startswith(str(value).lower())
        case "ends_with":
            return answer.strip().lower().endswith(str(value).lower())
        case "max_words":
            return words <= int(value)
        case "min_words":
            return words >= int(value)
        case "lines":
            return len(answer.strip().splitlines()) == value
        case kind:
            raise ValueError(f"unknown check {kind!r}")


def followed(examiner: Examiner, rows: list[Row]) -> Rate:
    """The share of checks that pass, over both turns; the second turn sees the model's own first answer."""
    turns: list[list[str]] = [row["turns"] for row in rows]  # type: ignore[misc]
    first = examiner.generate([prompts.chat(turn[0]) for turn in turns], 64)
    texts = [prompts.chat(turn[0], answer, turn[1]) for turn, answer in zip(turns, first, strict=True)]
    passed = total = 0
    for row, answers in zip(rows, zip(first, examiner.generate(texts, 64), strict=True), strict=True):
        groups: list[list[dict[str, str | int]]] = row["checks"]  # type: ignore[assignment]
        for checks, answer in zip(groups, answers, strict=True):
            total += len(checks)
            passed += sum(passes(check, answer) for check in checks)
    return Rate(passed, total)


def perplexity(examiner: Examiner, text: str) -> tuple[float, int]:
    """Over all tokens of the documents, each on its own after `<s>`."""
    pairs = [("", document) for document in split_documents(text)]
    tokens = sum(len(examiner.encode(document, begin=False)) for _, document in pairs)
    return math.exp(-sum(score for score, _ in examiner.continuations(pairs)) / tokens), tokens


def everything(
    examiner: Examiner, files: dict[str, str], limit: int | None = None, generated: int | None = None
) -> dict[str, object]:
    """All tasks on the first `limit` rows, or `generated` where the model writes at length; `files` maps the names of
    the data files to their contents.
    """
    rows = {name.removesuffix(".jsonl"): rows_of(text)[:limit] for name, text in files.items() if name.endswith("l")}
    for name in ("summarization", "instructions"):
        rows[name] = rows[name][:generated]
    rates = {
        "factoid_qa": answered(examiner, rows["factoid_qa"], prompts.FACTOID, "."),
        "retrieval_qa_closed": answered(examiner, rows["retrieval_qa_closed"], prompts.CLOSED, "\n"),
        "retrieval_qa_open": answered(examiner, rows["retrieval_qa_open"], prompts.OPEN, "\n"),
        "multiple_choice_letters": chosen(examiner, rows["multiple_choice"], in_words=False),
        "multiple_choice_words": chosen(examiner, rows["multiple_choice"], in_words=True),
        "summarization": summarised(examiner, rows["summarization"]),
        "instructions": followed(examiner, rows["instructions"]),
    }
    report: dict[str, object] = {
        name: {"value": rate.value, "n": rate.n, "interval": rate.interval} for name, rate in rates.items()
    }
    value, tokens = perplexity(examiner, files["perplexity.txt"])
    return report | {"perplexity": {"value": value, "n": tokens}}
