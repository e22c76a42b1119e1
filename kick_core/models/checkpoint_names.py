"""Under which names, and in which pieces, a model's parameters lie in its files.

Files may name a tensor otherwise than the model does (a prefix, an older name) or hold a parameter in pieces (an expert
a tensor). The library's loader has rules for both; they are applied here to names alone, so that one parameter can be
read by itself, and written again under the names and in the pieces that it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    apply_renamings,
    dot_natural_key,
    rename_source_key,
)

from kick_core.errors import KickError


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the files: its name, its name after the library's renamings, and the conversion's pattern for it."""

    name: str
    renamed: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What parameters are made of: one tensor as it is, or several by a conversion of the library's.

    `parameters` are all that come out of the conversion; `target` is the name that the library calls it by.
    """

    pieces: tuple[Piece, ...]
    parameters: tuple[str, ...]
    target: str
    conversion: WeightConverter | None = None

    def assemble(self, model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters from the files' tensors by name."""
        if self.conversion is None:
            return {self.target: tensors[self.pieces[0].name]}
        conversion = deepcopy(self.conversion)
        for piece in self.pieces:
            conversion.add_tensor(self.target, piece.name, piece.pattern, tensors[piece.name])
        return _converted(conversion, self.target, model)

    def take_apart(self, model: PreTrainedModel, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The files' tensors from all `parameters`, by name.

        Raises:
            KickError: When the library's conversion does not lead back to the tensors of the files.
        """
        if self.conversion is None:
            return {self.pieces[0].name: values[self.target]}
        back = self.conversion.reverse_transform()
        target = ""
        for parameter in self.parameters:
            name, pattern = back.rename_source_key(parameter)
            target = target or name
            back.add_tensor(target, parameter, pattern, values[parameter])
        parts = _converted(back, target, model)
        prefix = f"{model.base_model_prefix}."
        named = {part.removeprefix(prefix): tensor for part, tensor in parts.items()}
        origins = {piece.renamed.removeprefix(prefix): piece.name for piece in self.pieces}
        if named.keys() != origins.keys():
            raise KickError(
                f"{self.target} cannot be written in the pieces of its folder: the library makes {min(named)!r} of it"
            )
        return {origins[part]: tensor for part, tensor in named.items()}


def _converted(conversion: Any, target: str, model: PreTrainedModel) -> dict[str, Tensor]:
    values = conversion.convert(target, model=model, config=model.config)
    return {name: value[0] if isinstance(value, list) else value for name, value in values.items()}


def origins(model: PreTrainedModel, names: Iterable[str]) -> tuple[dict[str, Origin], list[str]]:
    """Where every parameter and buffer of a model comes from.

    Args:
        model: The model; it may be on meta.
        names: The names of all tensors in its files.

    Returns:
        The origins by the model's names, and the names in the files that the model has no place for.
    """
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    places = model.state_dict()
    pieces: dict[str, list[Piece]] = {}
    conversions: dict[str, WeightConverter | None] = {}
    unused: list[str] = []
    for name in sorted(names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, places)
        if target not in places and name in places:
            target, pattern = name, None
        if target not in places:
            unused.append(name)
            continue
        rule = by_pattern[pattern] if pattern is not None else None
        conversions[target] = rule
        pieces.setdefault(target, []).append(Piece(name, apply_renamings(name, renamings), pattern or ""))
    found: dict[str, Origin] = {}
    for target, own in pieces.items():
        rule = conversions[target]
        others = () if rule is None else tuple(target.replace(rule.target_patterns[0], t) for t in rule.target_patterns)
        parameters = tuple(dict.fromkeys(name for name in (target, *others) if name in places))
        found |= dict.fromkeys(parameters, Origin(tuple(own), parameters, target, rule))
    return found, unused


def unexpected(model: PreTrainedModel, unused: Iterable[str]) -> list[str]:
    """Of tensors that a model has no place for, those that the library does not pass over (as it may a tower)."""
    passed = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$"]
    return sorted(name for name in unused if not any(re.search(pattern, name) for pattern in passed))


def fits(model: PreTrainedModel, names: Iterable[str]) -> bool:
    """Whether a model is the one that files with tensors of these names are of: nothing missing, nothing unexpected."""
    places, unused = origins(model, names)
    passed = tuple(model._keys_to_ignore_on_load_missing or ())
    missing = model.state_dict().keys() - places.keys() - set(model.all_tied_weights_keys or ())
    return all(any(re.search(pattern, name) for pattern in passed) for name in missing) and not unexpected(
        model, unused
    )
