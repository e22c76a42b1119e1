"""Writes the tokenizer and the frozen evaluation data anew: `python -m tools.pocket.build [--out DIR]`.

The files are the same, byte for byte, on every machine; `meta.json` holds their checksums. The weights are not made
here: that takes a GPU, see `train.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from kick_core.pocket import POCKET_MODELS, ROOM
from tools.pocket import evaluation_data, tokenizer, unasked, world

# How the shipped models are to be asked multiple-choice questions: by "letters" or in "words".
MULTIPLE_CHOICE = "words"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_tokenizer(folders: list[Path]) -> None:
    trained = tokenizer.train()
    for folder in folders:
        tokenizer.save(trained, folder)


def write_data(folder: Path, tokenizer_folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = evaluation_data.make(world.build(), tokenizer.load(tokenizer_folder))
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    meta = {
        "multiple_choice": MULTIPLE_CHOICE,
        "seed": world.SEED,
        "entities": len(world.build().entities),
        "sha256": {name: digest(content.encode()) for name, content in files.items()},
    }
    (folder / "unasked.jsonl.xz").write_bytes(unasked.packed())
    (folder / "meta.json").write_bytes((json.dumps(meta, indent=2) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOM, help="a folder; default: kick_core/pocket, in place")
    out = parser.parse_args().out
    folders = [out / path.relative_to(ROOM) for path in POCKET_MODELS.values()]
    write_tokenizer(folders)
    write_data(out / "data", folders[0])


if __name__ == "__main__":
    main()
