"""Styles of judging: one file each, with a `STYLE`; the prompts' words are in `prompts.json`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from kick_core.errors import nearest
from kick_core.judging.styles.base import ALONE, FIRST, SECOND, JudgingStyle, PromptForm, Side

__all__ = ["ALONE", "FIRST", "SECOND", "JudgingStyle", "PromptForm", "Side", "form", "get", "names"]


@cache
def _styles() -> dict[str, JudgingStyle]:
    modules = (import_module(f"{__name__}.{module_info.name}") for module_info in iter_modules(__path__))
    styles = [module.STYLE for module in modules if hasattr(module, "STYLE")]
    return {style.name: style for style in styles}


def names() -> tuple[str, ...]:
    """The styles there are."""
    return tuple(_styles())


def get(name: str) -> JudgingStyle:
    """One style by name.

    Args:
        name: As `--style` takes it.

    Raises:
        BadRequest: It is unknown.
    """
    if name not in _styles():
        raise nearest(name, names(), "style")
    return _styles()[name]


def form(name: str) -> PromptForm:
    """One prompt by the name that is stored with a question.

    Args:
        name: Unique among all styles.

    Raises:
        KeyError: It is unknown.
    """
    return {name: form for style in _styles().values() for name, form in style.forms.items()}[name]
