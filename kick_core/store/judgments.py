"""What judges were asked and what they said. Replies are raw and kept for ever; verdicts are read out of them.

    judgments/ab/<judging>/judging.json            who judged what of whom, in which style
    judgments/ab/<judging>/asked-<sum>.parquet     its questions, whole; more repeats or examples add a file
    replies/ab/<judge>/part-<sum>.parquet          what one judge said, write-once
    live/<judge>/                                  replies of a judging that goes on (as in `results`)

Replies are found by their question's key, so a judge is never asked the same thing twice, whichever judging
wants to know. The sum in a file's name is its checksum.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kick_core.errors import KickError
from kick_core.records import JudgingCard, Question, Reply
from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json
from kick_core.store.live import not_written, open_live
from kick_core.store.locks import locked
from kick_core.store.plaindisk import DamagedRow, open_cache
from kick_core.store.tables import checksum, parquet, read

ROOMS = ("judgments", "replies")
_SEALED = re.compile(r"(?:asked|part)-([0-9a-f]{16})\.parquet")

_QUESTION = pa.schema(
    [
        ("key", pa.string()),
        ("subject", pa.string()),
        ("example", pa.string()),
        ("turn", pa.int32()),
        ("order", pa.string()),
        ("repeat", pa.int32()),
        ("form", pa.string()),
        ("system", pa.string()),
        ("user", pa.string()),
        ("cut", pa.bool_()),
        ("defused", pa.bool_()),
    ]
)
_REPLY = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("stop", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


def cards(store: Store) -> list[JudgingCard]:
    """The cards of all judgings, oldest first.

    Args:
        store: The cache.

    Raises:
        KickError: A card is damaged.
    """
    judgings = [_card(store.folder("judgments", key) / "judging.json") for key in store.keys("judgments")]
    return sorted((card for card in judgings if card), key=lambda card: (card.created, card.key))


def _card(path: Path) -> JudgingCard | None:
    try:
        return JudgingCard.from_json(read_sealed_json(path))
    except FileNotFoundError:
        return None  # killed before the card was written: nothing was asked yet
    except (Damaged, ValueError, TypeError) as error:
        raise KickError(f"the card {path} is damaged ({error})") from error


def card(store: Store, key: str) -> JudgingCard:
    """The card of one judging.

    Args:
        store: The cache.
        key: Of the judging.

    Raises:
        KickError: There is none, or it is damaged.
    """
    judging = _card(store.folder("judgments", key) / "judging.json")
    if judging is None:
        raise KickError(f"no judging {key!r} in {store.root}")
    return judging


def questions(store: Store, key: str, *, words: bool = True) -> list[Question]:
    """All questions of a judging, each once.

    Args:
        store: The cache.
        key: Of the judging.
        words: Read the prompts' words too, which takes longer.
    """
    columns = None if words else [name for name in _QUESTION.names if name not in ("system", "user")]
    rows = (row for path in sealed(store, "judgments", key) for row in read(path, columns))
    records = (Question.from_json(row if words else row | {"system": "", "user": ""}) for row in rows)
    return list({_place(question): question for question in records}.values())


def _place(question: Question) -> tuple[Any, ...]:
    """What tells questions of one judging apart; a key may stand for several (equal answers)."""
    return question.key, question.subject, question.example, question.turn


def replies(store: Store, judge: str) -> dict[str, Reply]:
    """Question key -> reply, of all sealed replies.

    Args:
        store: The cache.
        judge: The judge's key.
    """
    rows = (row for path in sealed(store, "replies", judge) for row in read(path))
    return {reply.key: reply for reply in map(Reply.from_json, rows)}


def sealed(store: Store, section: str, key: str) -> list[Path]:
    """The sealed files of a judging or a judge. They never change under one name.

    Args:
        store: The cache.
        section: "judgments" or "replies".
        key: Of the judging or the judge.
    """
    return sorted(path for path in store.folder(section, key).glob("*.parquet") if _SEALED.fullmatch(path.name))


def known(store: Store, judge: str) -> frozenset[str]:
    """The keys of all questions that have a reply, sealed or left behind by a kill. For a forecast.

    Args:
        store: The cache.
        judge: The judge's key.
    """
    live = store.live(judge)
    recorded: list[Reply] = []
    if live.exists():
        try:
            with open_cache(live) as cache:
                recorded = _recorded(cache)
        except DamagedRow:
            recorded = []
    return frozenset(replies(store, judge)) | {reply.key for reply in recorded}


# --- writing -----------------------------------------------------------------------------------------------


def keep_questions(store: Store, card: JudgingCard, new_questions: Sequence[Question]) -> None:
    """Store a judging's card and questions, before they are sent. What is there already stays as it is.

    Args:
        store: The cache.
        card: Of the judging.
        new_questions: Those of its questions that are to be sent now.
    """
    folder = store.folder("judgments", card.key)
    stored = {_place(question) for question in questions(store, card.key, words=False)}
    rows = [question.to_json() for question in new_questions if _place(question) not in stored]
    if rows:
        data = parquet(rows, _QUESTION)
        replace_file(folder / f"asked-{checksum(data)}.parquet", data)
    if not (folder / "judging.json").exists():
        replace_file(folder / "judging.json", seal_json(card.to_json()))


@dataclass(frozen=True, slots=True)
class Recorder:
    """A judging in progress: the keys of all replies there are, and a place for new ones."""

    store: Store
    judge: str
    cache: Any
    known: frozenset[str]

    def record(self, reply: Reply) -> None:
        """Store one reply durably; it was paid for.

        Args:
            reply: As it arrived.

        Raises:
            KickError: It cannot be written.
        """
        try:
            self.cache.set(reply.key, reply.to_json())
        except (sqlite3.DatabaseError, OSError) as error:
            raise not_written(Path(self.cache.directory), len(reply.text), error) from error

    def seal(self) -> None:
        """Write all recorded replies as one part."""
        sealed_replies = replies(self.store, self.judge)
        rows = [reply.to_json() for reply in _recorded(self.cache) if reply.key not in sealed_replies]
        if rows:
            data = parquet(rows, _REPLY)
            replace_file(self.store.folder("replies", self.judge) / f"part-{checksum(data)}.parquet", data)


def _recorded(cache: Any) -> list[Reply]:
    """The replies in a live database, sorted by key; damaged rows count as absent."""
    recorded = []
    for key in sorted(cache):
        try:
            recorded.append(Reply.from_json(cache.get(key)))
        except (DamagedRow, ValueError, TypeError, AttributeError):
            continue
    return recorded


@contextmanager
def recorder(store: Store, judge: str) -> Iterator[Recorder]:
    """Take the right to query a judge; another process that queries the same one waits.

    Seals the replies at the end, whatever ended it. After a kill the live database is there, and the next run seals it.

    Args:
        store: The cache.
        judge: The judge's key.
    """
    with locked(store.lock_path(judge)):
        live = store.live(judge)
        cache = open_live(store, judge)
        recorded = _recorded(cache)
        known = frozenset(replies(store, judge)) | {reply.key for reply in recorded}
        open_recorder = Recorder(store, judge, cache, known)
        try:
            yield open_recorder
        finally:
            open_recorder.seal()
            cache.close()
        shutil.rmtree(live, ignore_errors=True)
