"""What must not be in the tree, read from the sources: nothing that unpickles, evaluates, or runs a folder's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "app.py",
    *(path for room in ("kick_core", "pages", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))),
]
FORBIDDEN_IMPORTS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "tarfile",
}
FORBIDDEN_CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.Loader",
    "yaml.UnsafeLoader",
    "yaml.FullLoader",
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "pandas.read_pickle",
}
LOADERS = {"from_pretrained"}
CODELESS = {"from_config"}
"""Builds from a config object that a loader made; it takes no files."""


def calls(source: str) -> Iterator[tuple[str, dict[str, object], int]]:
    """Every call: its dotted name, its keywords (constants by value), its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = {
                word.arg or "**": word.value.value if isinstance(word.value, ast.Constant) else ...
                for word in node.keywords
            }
            yield ast.unparse(node.func), given, node.lineno


def faults(source: str) -> list[str]:
    """Everything that may not be there."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: imports {n}" for n in names if n.partition(".")[0] in FORBIDDEN_IMPORTS]  # type: ignore[attr-defined]
    for name, given, line in calls(source):
        last = name.rpartition(".")[2]
        if name in FORBIDDEN_CALLS:
            found.append(f"{line}: calls {name}")
        if given.get("shell", False) is not False:
            found.append(f"{line}: {name} through a shell")
        if last in LOADERS and given.get("trust_remote_code") is not False:
            found.append(f"{line}: {name} without trust_remote_code=False")
        if last in LOADERS and "Model" in name and given.get("use_safetensors") is not True:
            found.append(f"{line}: {name} without use_safetensors=True")
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") is not False:
            found.append(f"{line}: {name} without allow_pickle=False")
        if "trust_remote_code" in given and given["trust_remote_code"] is not False:
            found.append(f"{line}: {name} trusts remote code")
        if given.get("weights_only", True) is not True:
            found.append(f"{line}: {name} with weights_only=False")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_or_runs_foreign_code(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import joblib.numpy_pickle", "torch.load('x')", "eval('1')",
        "AutoModel.from_pretrained(x, use_safetensors=True)", "AutoModel.from_pretrained(x, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=given)", "np.load(x)", "np.load(x, allow_pickle=True)",
        "subprocess.run(x, shell=True)", "load_dataset(x, trust_remote_code=True)", "f(x, weights_only=False)",
    ],
)  # fmt: skip
def test_each_of_them_would_be_found(line: str) -> None:
    assert faults(line)


def test_only_the_store_and_its_checks_open_databases() -> None:
    """diskcache unpickles by default (CVE-2025-69872): it is opened in one place, with a Disk that knows only JSON."""
    users = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for name, _, _ in calls(path.read_text(encoding="utf-8"))
        if name.startswith(("diskcache.", "Cache(", "sqlite3.connect"))
    }
    assert users <= {"kick_core/store/plaindisk.py", "kick_core/store/checks.py", "benchmarks/store.py"}
