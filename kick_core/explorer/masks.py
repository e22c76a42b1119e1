"""Which weights of one matrix a method keeps, at every step: the first matrix of the middle block, weight by weight."""

from __future__ import annotations

import base64

import pandas as pd

from kick_core import views
from kick_core.explorer import controls, data
from kick_core.explorer.frame import heading
from kick_core.explorer.safe import Safe, show, tag
from kick_core.explorer.steps import each
from kick_core.views import matrices


def kept(model: str, method: str, here: int) -> None:
    """The masks of a method, the one of the step `here` shown; nothing where no artifact is left to look into."""
    pictures = _pictures(model, method)
    if not pictures:
        return
    heading("Kept weights", "The first matrix of the middle block, its first rows; red is dropped.")
    show(each(pictures, here))


def _words(model: str, method: str) -> data.Words:
    return (*data.shown_words(model), method)


@data.remembered(32, _words)
def _pictures(model: str, protocol: str, kind: str, method: str) -> dict[int, Safe]:
    """The mask of a method at every sparsity that has one."""
    frame = views.current(data.scores(), model, protocol, kind)
    recipes = controls.recipes_at(frame, method, controls.percents(frame, method))
    return {step: picture for step, recipe in recipes.items() if (picture := _picture(frame, model, recipe))}


def _picture(frame: pd.DataFrame, model: str, recipe: str) -> Safe | None:
    rows = frame[frame["recipe"] == recipe]
    row = rows.iloc[0] if len(rows) else None
    if row is None or not row["weights"].startswith("weights"):
        return None
    layers = data.layers(row["weights"])
    if layers.empty:
        return None
    one = layers[layers["block"] == layers["block"].max() // 2].iloc[0]
    name, block, high, wide = views.asked_name(model), int(one["block"]), int(one["rows"]), int(one["cols"])
    png = data.mask(matrices.Asked(name, recipe, row["weights"], block, str(one["name"]), high, wide))
    if png is None:
        return None
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    words = f"Block {block}, {one['name']} under {row['label']}"
    return tag("figure", tag("img", src=source, alt=words, cls="mask"), tag("figcaption", words, cls="quiet"))
