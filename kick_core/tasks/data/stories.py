"""CNN/DailyMail (Hermann et al. 2015; See et al. 2017): stories, their highlights, three lengths.

A folder holds `.story` files, in `cnn_dailymail/{small,mid,large}` as LLM-KICK ships them, or all in one folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kick_core.errors import BadRequest
from kick_core.records import Example
from kick_core.tasks.data.hub import Hub, answered, folder, hub_rows, in_random_order, inside, text_of
from kick_core.tasks.wording import NEWS_AS_PUBLISHED, SUMMARY

HUB = Hub("abisee/cnn_dailymail", "96df5e686bee6baa90b8bee7c28b81fa3fa6223d", "3.0.0")
BUCKETS = {"small": "small", "mid": "medium", "large": "large"}
"""LLM-KICK's folders and what the lengths are called here."""

SMALL, LARGE = 470, 790
"""Words: up to SMALL is small, from LARGE on is large (the paper's bounds, which overlap at their ends)."""

PAPER_COUNT = 100
"""Stories a bucket in the paper; its list is not published, so from the hub they are the first of the test split."""

_MARK = "@highlight"
_BASES = ("cnn_dailymail", ".")


class Story(NamedTuple):
    """One story: the text as it lies, without its highlights; `place` is the folder it lay in."""

    id: str
    place: str
    lines: list[str]
    highlights: list[str]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).split())

    @property
    def bucket(self) -> str:
        return bucket(len(self.text.split()))


def bucket(words: int) -> str:
    """The length of a story of so many words."""
    return "small" if words <= SMALL else "large" if words >= LARGE else "medium"


def strict(data: str) -> tuple[Example, ...]:
    """Every story once, in random order, without its highlights."""
    stories = {story.id: story for story in _stories(data)}.values()
    return in_random_order("cnn_dailymail", (_example(s.id, SUMMARY, s.text, s.bucket, s) for s in stories))


def as_published(data: str) -> tuple[Example, ...]:
    """The buckets' stories in file order, highlights and all, lines glued without a space."""
    examples, counts = [], dict.fromkeys(BUCKETS.values(), 0)
    for story in _stories(data):
        length = BUCKETS.get(story.place) or story.bucket
        counts[length] += 1
        if story.place or counts[length] <= PAPER_COUNT:
            marked = [part for highlight in story.highlights for part in (_MARK, highlight)]
            text = "".join(line.strip() for line in (*story.lines, *marked))
            wording = SUMMARY if length == "small" else NEWS_AS_PUBLISHED
            name = f"{length}-{story.id}"
            examples.append(_example(name, wording, text, length, story))
    return answered(examples)


def _example(name: str, wording: str, text: str, length: str, story: Story) -> Example:
    meta = {"story": text, "bucket": length, "words": len(text.split())}
    return Example(name, (wording.format(story=text),), answers=("\n".join(story.highlights),), meta=meta)


def parse(name: str, place: str, text: str) -> Story:
    """Read a `.story` file: the story, then `@highlight` lines, each followed by one sentence."""
    before, *marked = text.split(_MARK)
    highlights = [" ".join(part.split()) for part in marked]
    return Story(name, place, before.split("\n"), [highlight for highlight in highlights if highlight])


def _stories(data: str) -> Iterator[Story]:
    if (root := folder(data)) is None:
        for row in hub_rows(HUB, "test", "article", "highlights", "id"):
            yield Story(row["id"], "", row["article"].split("\n"), row["highlights"].split("\n"))
        return
    for place, path in _files(root):
        story = parse(path.stem, place, text_of(inside(root, str(path.relative_to(root)))))
        if not story.highlights:
            raise BadRequest(f"{path} has no {_MARK} line: without it there is no reference")
        yield story


def _files(root: Path) -> list[tuple[str, Path]]:
    for base in _BASES:
        folders = [(place, inside(root, f"{base}/{place}")) for place in (*BUCKETS, "")]
        stories = [(place, path) for place, lies in folders for path in sorted(lies.glob("*.story"))]
        if stories:
            return stories
    candidates = ", ".join(f"{base}/{place}/*.story".replace("./", "") for base in _BASES for place in (*BUCKETS, ""))
    raise BadRequest(f"{root} holds no CNN/DailyMail: looked for {candidates.replace('//', '/')}")
