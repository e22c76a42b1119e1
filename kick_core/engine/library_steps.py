"""The steps of decoding for models that slots and pages do not serve: with the library's own cache, or without one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.engine.batching import BatchPolicy, Ids, answer, logits_in, logits_of, padded
from kick_core.engine.caches import new_cache, select_rows
from kick_core.engine.steps import Chooser, chosen


class LibrarySteps:
    """The steps of models with sliding windows or states of other kinds: the library's own cache, all rows to the end.
    Used as `SlotSteps` is.

    Prompts are padded on the left to one length; a step is handed the mask of all tokens so far, or none at all when
    not `masked`. When not `padded`, prompts have one length and no mask is handed at all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        plan: BatchPolicy,
        filler: int,
        choose: Chooser | None,
        *,
        padded: bool = True,
        masked: bool = True,
    ) -> None:
        self.model, self.plan, self.filler, self.choose = model, plan, filler, choose
        self.padded, self.masked = padded, masked and padded

    def begin(self, prompts: Sequence[Ids], rows: int, room: int, new_tokens: int, uniforms: Tensor | None) -> None:
        """Read the prompts of a batch, the longest last."""
        length = self.plan.length(len(prompts[-1])) if self.padded else len(prompts[-1])
        given = padded(prompts, rows, length, self.filler, self.model.device)
        self.mask, self.positions, self.ids = given.mask, given.positions, given.ids
        self.cache, self.number = new_cache(self.model), 0
        self.uniforms = torch.zeros(rows, new_tokens) if uniforms is None else uniforms

    def next(self) -> list[int]:
        """The next token of every row."""
        inputs = {"input_ids": self.ids, "past_key_values": self.cache, "use_cache": True}
        if self.masked or (self.padded and not self.number):
            inputs["attention_mask"] = self.mask
        if self.padded:
            inputs["position_ids"] = self.positions
        output = answer(self.model, inputs, 1)
        self.cache = getattr(output, "past_key_values", self.cache)
        tokens = chosen(logits_in(output, 1)[:, 0], self.choose, self.uniforms[:, self.number].to(self.model.device))
        self.ids, self.positions = tokens.clamp(min=0)[:, None], self.positions[:, -1:] + 1
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.number += 1
        return list(tokens.tolist())

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self.model.device)
        select_rows(self.cache, index)
        self.ids, self.positions, self.mask = self.ids[index], self.positions[index], self.mask[index]
        self.uniforms = self.uniforms[index.cpu()]
        return list(rows)


class PlainSteps:
    """The steps of models that no cache serves rightly: the whole text is read again for every token. Prompts have one
    length. Used as `SlotSteps` is."""

    def __init__(self, model: PreTrainedModel, choose: Chooser | None) -> None:
        self.model, self.choose = model, choose

    def begin(self, prompts: Sequence[Ids], rows: int, room: int, new_tokens: int, uniforms: Tensor | None) -> None:
        """Take the prompts of a batch; rows beyond them are copies."""
        given = [list(prompts[min(row, len(prompts) - 1)]) for row in range(rows)]
        self.ids, self.number = torch.tensor(given, device=self.model.device), 0
        self.uniforms = torch.zeros(rows, new_tokens) if uniforms is None else uniforms

    def next(self) -> list[int]:
        """The next token of every row."""
        logits = logits_of(self.model, {"input_ids": self.ids, "use_cache": False}, 1)[:, 0]
        tokens = chosen(logits, self.choose, self.uniforms[:, self.number].to(logits.device))
        self.ids = torch.cat([self.ids, tokens.clamp(min=0)[:, None]], 1)
        self.number += 1
        return list(tokens.tolist())

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self.model.device)
        self.ids, self.uniforms = self.ids[index], self.uniforms[index.cpu()]
        return list(rows)
