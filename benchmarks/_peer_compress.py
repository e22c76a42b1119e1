"""llm-compressor's whole program over a model folder: open, tokenise, `oneshot`, save; seconds of each as JSON.

    python _peer_compress.py FOLDER METHOD WINDOWS LENGTH OUT

It is no dependency and runs in whichever environment has it.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from typing import Any


def main() -> None:
    folder, method, windows, length, out = sys.argv[1:]
    seconds, began = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[name], began = now - began, now

    if find_spec("llmcompressor") is None:
        sys.exit("llmcompressor is not installed")
    import torch
    from compression_peer import modifiers
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lap("import")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with open(f"{folder}/text.txt", encoding="utf-8") as file:
        ids = torch.tensor(tokenizer(file.read())["input_ids"][: int(windows) * int(length)]).view(-1, int(length))
    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    data.set_format("torch")
    lap("calibration")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map=device, use_safetensors=True, trust_remote_code=False
    )
    lap("open")
    oneshot(
        model=model, processor=tokenizer, dataset=data, recipe=[modifiers()[method]()], max_seq_length=int(length),
        num_calibration_samples=len(ids), pipeline="sequential", sequential_targets=["LlamaDecoderLayer"], log_dir=None,
    )  # fmt: skip
    lap("oneshot")
    model.save_pretrained(out, save_compressed=True)
    lap("save")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
