"""Trials of forms that need no repeating: a command that asks a known model begins with what an earlier one found."""

from __future__ import annotations

from kick_core import keys
from kick_core.artifacts.loaded_model import OpenModel
from kick_core.engine import forms
from kick_core.store import Store, trials


def recall(store: Store, opened: OpenModel) -> None:
    """Take over what trials of this model came to, on this kind of device and with these versions of the engine."""
    forms.assume(opened.model, trials.remembered(store, _identity(opened)))


def keep(store: Store, opened: OpenModel) -> None:
    """Remember what trials of this model came to so far."""
    if facts := forms.facts(opened.model):
        trials.remember(store, _identity(opened), facts)


def _identity(opened: OpenModel) -> str:
    return keys.key("trials", {"model": opened.source.fingerprint, **forms.circumstances(opened.model)})
