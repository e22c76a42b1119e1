"""Which weights of one matrix a method keeps, at every step: the first matrix of the middle block, weight by weight."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pandas as pd

from kick_core import views
from kick_core.explorer import data
from kick_core.explorer.frame import heading
from kick_core.explorer.safe import Safe, show, tag
from kick_core.explorer.steps import each
from kick_core.views import matrices


def kept(frame: pd.DataFrame, model: str, recipes: Mapping[int, str], here: int) -> None:
    """The masks of a method, the one of the step `here` shown; nothing where no artifact is left to look into."""
    pictures = {step: picture for step, recipe in recipes.items() if (picture := _picture(frame, model, recipe))}
    if not pictures:
        return
    heading("Kept weights", "The first matrix of the middle block, its first rows; red is dropped.")
    show(each(pictures, here))


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
