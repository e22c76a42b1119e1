"""Columns of verdicts are those of their file, also where files share what others do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kick_core.errors import KickError
from kick_core.store.tables import write
from kick_core.views import verdict_columns


def _rows(ids: str, scorers: list[str], score: float, words: list[str | None]) -> list[dict[str, object]]:
    return [
        {"example": name, "scorer": scorer, "score": score + at, "extracted": words[at % len(words)], "why": None}
        for at, name in enumerate(ids)
        for scorer in scorers
    ]


def test_every_file_gives_its_own_rows(tmp_path: Path) -> None:
    files = [
        _rows("abcd", ["one", "two"], 0.0, ["A", "b"]),
        _rows("abcd", ["one", "two"], 9.0, ["a", None]),  # the same examples and scorers: decoded once
        _rows("dcba", ["one", "two"], 5.0, ["x"]),
        _rows("abcd", ["two", "one"], 7.0, ["y"]),
        _rows("abcd", ["one"], 3.0, ["z"]),
    ]
    read = []
    for at, rows in enumerate(files):
        path = tmp_path / f"{at}.parquet"
        path.write_bytes(write(pa.Table.from_pylist(rows)))
        read.append(verdict_columns.stored(path, 0))
        for scorer, columns in read[-1].items():
            mine = [row for row in rows if row["scorer"] == scorer]
            assert list(columns.ids) == [row["example"] for row in mine]
            assert list(columns.score) == [row["score"] for row in mine]
            assert columns.extracted() == [row["extracted"] or "" for row in mine]
            assert list(columns.why) == [None] * len(mine)
    assert list(read[3]) == ["two", "one"] and read[0]["one"].ids is read[4]["one"].ids
    places = np.arange(4)
    before, after = read[0]["one"], read[1]["two"]
    assert verdict_columns.changed(before, places, after, places, str) == 4
    assert verdict_columns.changed(before, places, after, places, str.lower) == 2
    assert verdict_columns.changed(before, places[:2], before.take(places[::-1]), places[:2], str) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.parquet"
    path.write_bytes(write(pa.Table.from_pylist(_rows("abcd", ["one"], 0.0, ["A"])))[:-9])
    with pytest.raises(KickError, match=r"verdicts\.parquet is damaged"):
        verdict_columns.stored(path, 0)
