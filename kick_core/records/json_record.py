"""Records as plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self


class JsonRecord:
    """What every record can do, a frozen dataclass of plain values, tuples, dicts and further records."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object: field name -> value."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The record that `to_json` gave.

        Args:
            data: Field name -> value; fields with a default may be missing.

        Raises:
            ValueError: There is an unknown field: a newer program wrote it, and what it means must not get lost.
            TypeError: A field without a default is missing.
        """
        if unknown := set(data) - cls.__dataclass_fields__.keys():
            raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**{name: _frozen(value) for name, value in data.items()})

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> list[Self]:
        """`from_json` of every row of a table, several times as fast.

        Args:
            columns: Field name -> its values, all of one length.

        Raises:
            ValueError: There is an unknown field.
            TypeError: A field without a default is missing.
        """
        if unknown := set(columns) - cls.__dataclass_fields__.keys():
            raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        names = [name for name in cls.__dataclass_fields__ if name in columns]
        rows = zip(*(_all_frozen(columns[name]) for name in names), strict=True)
        if names == list(cls.__dataclass_fields__)[: len(names)]:
            return [cls(*row) for row in rows]
        return [cls(**dict(zip(names, row, strict=True))) for row in rows]


def _all_frozen(values: Sequence[Any]) -> Sequence[Any]:
    """A column with tuples for lists; a column of plain values is left as it is."""
    first = next((value for value in values if value is not None), None)
    return [_frozen(value) for value in values] if isinstance(first, list) else values


def _plain(value: Any) -> Any:
    """As `dataclasses.asdict`, which looks into every single number and takes ten times as long."""
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, tuple) and any(isinstance(item, JsonRecord | tuple) for item in value):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict) and any(isinstance(item, JsonRecord) for item in value.values()):
        return {name: _plain(item) for name, item in value.items()}
    return _copied(value)


def _copied(value: Any) -> Any:
    """A copy of a JSON value, several times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _frozen(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(map(_frozen, value)) if any(isinstance(item, list) for item in value) else tuple(value)
