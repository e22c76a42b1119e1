"""What the benchmarks of compression share: sizes, models of a shape, time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core.compression import activations


@dataclass
class Bench:
    """What all rows share."""

    device: torch.device
    hidden: int
    intermediate: int
    heads: int
    windows: int
    length: int
    layers: int
    golden: Path | None
    figures: dict[str, Any] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 5) -> float:
        """The median of some runs after one that warms up."""
        work()
        found = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - began)
        return sorted(found)[len(found) // 2]

    def tell(self, line: str) -> None:
        self.table.append(line)
        print(line, flush=True)

    @contextmanager
    def peak(self, into: dict[str, Any]) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            into["peak_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)

    def model(self, layers: int | None = None, **changed: int) -> LlamaForCausalLM:
        """A random Llama with blocks of the asked shape, bfloat16."""
        size = {"hidden": self.hidden, "intermediate": self.intermediate, "heads": self.heads} | changed
        config = LlamaConfig(
            vocab_size=1024, hidden_size=size["hidden"], intermediate_size=size["intermediate"],
            num_hidden_layers=layers or self.layers, num_attention_heads=size["heads"],
            num_key_value_heads=size["heads"], max_position_embeddings=max(2048, self.length), use_cache=False,
        )  # fmt: skip
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with self.device:
                return LlamaForCausalLM(config).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(before)

    def ids(self, windows: int | None = None) -> Tensor:
        make = torch.Generator().manual_seed(1)
        return torch.randint(0, 1024, (windows or self.windows, self.length), generator=make).to(self.device)


def rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


@contextmanager
def batched(windows: int) -> Iterator[None]:
    before = activations.BATCH
    activations.BATCH = windows
    try:
        yield
    finally:
        activations.BATCH = before
