"""Which methods there are: one file each, and the file's name is the method's name.

A card is read from its file without running it, so that planning and keys never wait for torch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from kick_core.errors import BadRequest, nearest
from kick_core.methods.base import CompressedMatrix, MethodCard

Method = Callable[..., CompressedMatrix]


_MATRIX = Path(__file__).parent
_PLANNERS = _MATRIX.parent / "artifacts" / "planners"
"""Methods that look at the whole model have their files, and in them their cards, there."""


@cache
def _files(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.py") if "\nCARD = {" in path.read_text("utf-8")))


def names() -> tuple[str, ...]:
    """The methods there are, found by looking at file names: functions of one matrix, and those that plan."""
    return tuple(sorted(_files(_MATRIX) + _files(_PLANNERS)))


def of_a_matrix() -> tuple[str, ...]:
    """The methods that are functions of one matrix."""
    return _files(_MATRIX)


@cache
def card(name: str) -> MethodCard:
    """A method's card, read from its file without running it.

    Args:
        name: The method's name, which is its file's.

    Raises:
        BadRequest: The method is unknown.
        TypeError: Its file holds no literal `CARD`.
    """
    if name not in names():
        raise nearest(name, ("dense", *names()), "method")
    path = (_MATRIX if name in of_a_matrix() else _PLANNERS) / f"{name}.py"
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets):
            summary = (ast.get_docstring(tree) or "").partition("\n")[0]
            return MethodCard(name=name, summary=summary, **ast.literal_eval(node.value))
    raise TypeError(f"kick_core/{path.parent.name}/{name}.py holds no literal CARD")


def function(name: str) -> Method:
    """A method's function; this is where torch is first needed.

    Args:
        name: The method's name.

    Raises:
        BadRequest: The method is unknown, or plans over the whole model and so has no function of one matrix.
    """
    if card(name).plans:
        raise BadRequest(f"{name} looks at the whole model: `kick compress` or kick_core.load make it, not one matrix")
    method: Method = import_module(f"kick_core.methods.{name}").compress
    return method
