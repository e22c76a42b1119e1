"""Records as plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
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


def _plain(value: Any) -> Any:
    """As `dataclasses.asdict`, which looks into every single number and takes ten times as long."""
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, tuple) and any(isinstance(item, JsonRecord | tuple) for item in value):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict) and any(isinstance(item, JsonRecord) for item in value.values()):
        return {name: _plain(item) for name, item in value.items()}
    return deepcopy(value) if isinstance(value, dict | list) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
