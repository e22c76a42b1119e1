"""Folders, files and words made to do harm: no code runs, nothing outside is read, and one plain line says why not.

Payloads only touch a proof file. What an upstream library would do with each is in reliability.md, section 4.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pytest

from kick_core import views
from kick_core.cli import main
from kick_core.errors import KickError
from kick_core.models import chat_template

SECRET = "SENTINEL-7391-of-another-file"
_opened: list[str] = []
_listening = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_audit)


class World:
    """A copy of a good model folder, a place outside it, and a file that only a payload makes."""

    def __init__(self, base: Path, good: Path) -> None:
        self.base, self.folder, self.outside, self.proof = base, base / "model", base / "outside", base / "proof"
        copytree(good, self.folder)
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(f"{SECRET}\n" * 400)
        (self.outside / "secret.json").write_text(json.dumps({"model_type": "llama", "note": SECRET}))
        copy(good / "model.safetensors", self.outside / "model.safetensors")

    def payload(self) -> bytes:
        return pickle.dumps(_Payload(str(self.proof)))

    def code(self) -> str:
        return f"import pathlib; pathlib.Path({str(self.proof)!r}).touch()\nclass Evil: pass\n"

    def config(self, **changes: Any) -> None:
        self.rewrite("config.json", **changes)

    def rewrite(self, name: str, **changes: Any) -> None:
        path = self.folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def index(self, weight_map: Any) -> None:
        (self.folder / "model.safetensors").rename(self.folder / "model-00001-of-00001.safetensors")
        (self.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def weights(self, header: Any, data: bytes = b"\0" * 64, *, length: int | None = None) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = self.folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)

    def link(self, name: str, target: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).symlink_to(target)


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def _one(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _pickle_only(world: World, name: str) -> None:
    (world.folder / "model.safetensors").unlink()
    (world.folder / name).write_bytes(world.payload())


def _own_tokenizer(world: World) -> None:
    (world.folder / "evil.py").write_text(world.code())
    world.rewrite("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}, tokenizer_class="Evil")
    for name in ("tokenizer.json",):
        (world.folder / name).unlink()


def _own_model(world: World) -> None:
    (world.folder / "evil.py").write_text(world.code())
    world.config(auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}, model_type="evil")


def _fifo(world: World) -> None:
    (world.folder / "config.json").unlink()
    os.mkfifo(world.folder / "config.json")


MODELS: dict[str, tuple[Callable[[World], object], str]] = {
    # which files are read
    "index names ../": (lambda w: w.index({"x": "../outside/model.safetensors"}), "plain .safetensors names"),
    "index names an absolute path": (lambda w: w.index({"x": str(w.outside / "model.safetensors")}), "plain .saf"),
    "index names a folder's file": (lambda w: w.index({"x": "sub/model.safetensors"}), "plain .safetensors names"),
    "index names a pickle": (lambda w: w.index({"x": "pytorch_model.bin"}), "plain .safetensors names"),
    "index names a number": (lambda w: w.index({"x": 7}), "plain .safetensors names"),
    "index names a list": (lambda w: w.index({"x": ["a.safetensors"]}), "plain .safetensors names"),
    "index names NUL": (lambda w: w.index({"x": "a\0.safetensors"}), "plain .safetensors names"),
    "index names a bidirectional text": (lambda w: w.index({"x": "a\u202e.safetensors"}), "plain .safetensors names"),
    "index names 10,000 letters": (lambda w: w.index({"x": "a" * 10_000 + ".safetensors"}), "plain .safetensors"),
    "index names what is not there": (lambda w: w.index({"x": "b.safetensors"}), "is not there"),
    "index is a list": (lambda w: w.index([]), "names no shard"),
    "index is empty": (lambda w: w.index({}), "names no shard"),
    "weights are a link outside": (lambda w: w.link("model.safetensors", "../outside/model.safetensors"), "link"),
    "config is a link outside": (lambda w: w.link("config.json", "../outside/secret.json"), "outside its folder"),
    "template is a link outside": (lambda w: w.link("chat_template.jinja", "../outside/secret.txt"), "outside its"),
    "tokenizer is a link to passwd": (lambda w: w.link("tokenizer.json", "/etc/passwd"), "outside its folder"),
    "a link to itself": (lambda w: w.link("config.json", "config.json"), "no plain file"),
    "config is a pipe": (_fifo, "no plain file"),
    "adapter of another model": (
        lambda w: (w.folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{w.outside}"}}'),
        "adapter",
    ),
    # code
    "pickle only, .bin": (lambda w: _pickle_only(w, "pytorch_model.bin"), "only safetensors"),
    "pickle only, .pt": (lambda w: _pickle_only(w, "model.pt"), "only safetensors"),
    "pickle named .safetensors": (lambda w: (w.folder / "model.safetensors").write_bytes(w.payload()), "no whole saf"),
    "code of its own for the model": (_own_model, "auto_map"),
    "code of its own in a nested config": (lambda w: w.config(text_config={"auto_map": {"A": "e.E"}}), "auto_map"),
    "code of its own for the tokenizer": (_own_tokenizer, "tokenizer"),
    "attention from a repository": (lambda w: w.config(attn_implementation="evil/kernel"), "code from elsewhere"),
    "_attention from a repository": (lambda w: w.config(_attn_implementation="evil/kernel"), "code from elsewhere"),
    "attention by parts": (lambda w: w.config(attn_implementation={"": "evil/kernel"}), "code from elsewhere"),
    "experts from a repository": (lambda w: w.config(experts_implementation="evil/kernel"), "code from elsewhere"),
    # configs
    "a billion layers": (lambda w: w.config(num_hidden_layers=10**9), "not of this config"),
    "a hidden size of 10^15": (lambda w: w.config(hidden_size=10**15), "not of this config"),
    "a vocabulary of 10^12": (lambda w: w.config(vocab_size=10**12), "not of this config"),
    "a context of 10^18": (lambda w: w.config(max_position_embeddings=10**18), "not of this config"),
    "minus one layer": (lambda w: w.config(num_hidden_layers=-1), "whole number"),
    "layers in words": (lambda w: w.config(num_hidden_layers="two"), "whole number"),
    "half a head": (lambda w: w.config(num_attention_heads=0.5), "whole number"),
    "no heads": (lambda w: w.config(num_attention_heads=0), "cannot be opened"),
    "an unknown type": (lambda w: w.config(model_type="../../evil"), "cannot be opened"),
    "a type that is a number": (lambda w: w.config(model_type=7), "names no model_type"),
    "quantized by a list": (lambda w: w.config(quantization_config=[1]), "quantization_config"),
    "quantized by something else": (lambda w: w.config(quantization_config={"quant_method": "evil"}), "evil"),
    "config of 100,000 brackets": (lambda w: (w.folder / "config.json").write_text("[" * 100_000), "damaged"),
    "config is no UTF-8": (lambda w: (w.folder / "config.json").write_bytes(b"\xff\xfe{\0"), "damaged"),
    "config of 65 MB": (lambda w: (w.folder / "config.json").write_text(" " * (65 << 20)), "more than 64 MB"),
    "config is a list": (lambda w: (w.folder / "config.json").write_text("[]"), "object"),
    # safetensors
    "a header of 2^63 bytes": (lambda w: w.weights({}, length=2**63), "no whole safetensors"),
    "a header longer than the file": (lambda w: w.weights({}, length=10_000), "no whole safetensors"),
    "overlapping tensors": (
        lambda w: w.weights({"a": _one("F32", [8], 0, 32), "b": _one("F32", [8], 16, 48)}, b"\0" * 48), "no whole saf",
    ),
    "a gap between tensors": (
        lambda w: w.weights({"a": _one("F32", [4], 0, 16), "b": _one("F32", [4], 32, 48)}, b"\0" * 48), "no whole saf",
    ),
    "a tensor past the end": (lambda w: w.weights({"a": _one("F32", [64], 0, 256)}), "no whole safetensors"),
    "a shape that lies": (lambda w: w.weights({"a": _one("F32", [10**9], 0, 64)}), "no whole safetensors"),
    "a shape that overflows": (lambda w: w.weights({"a": _one("F32", [2**62, 16], 0, 64)}), "no whole safetensors"),
    "a negative shape": (lambda w: w.weights({"a": _one("F32", [-4, -4], 0, 64)}), "no whole safetensors"),
    "offsets backwards": (lambda w: w.weights({"a": _one("F32", [16], 64, 0)}), "no whole safetensors"),
    "an unknown type of number": (lambda w: w.weights({"a": _one("EVIL", [16], 0, 64)}), "no whole safetensors"),
    "bytes after the end": (lambda w: w.weights({"a": _one("F32", [4], 0, 16)}, b"\0" * 99), "no whole safetensors"),
    "a header that is no JSON": (lambda w: w.weights(b"{'a':"), "no whole safetensors"),
    "100,000 brackets for a header": (lambda w: w.weights(b"[" * 100_000), "no whole safetensors"),
    "an empty file": (lambda w: (w.folder / "model.safetensors").write_bytes(b""), "no whole safetensors"),
    "a zip": (lambda w: (w.folder / "model.safetensors").write_bytes(_zip()), "no whole safetensors"),
    # tokenizers
    "a tokenizer of garbage": (lambda w: (w.folder / "tokenizer.json").write_text('{"version": "1.0"}'), "tokenizer"),
    "a tokenizer of brackets": (lambda w: (w.folder / "tokenizer.json").write_text("[" * 100_000), "tokenizer"),
}  # fmt: skip


def _zip() -> bytes:
    """A thousand million zeros in a few thousand bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", b"\0" * (50 << 20))
    return target.getvalue()


@pytest.fixture
def world(tmp_path: Path, tiny_folder: Path) -> World:
    return World(tmp_path, tiny_folder)


@pytest.fixture
def refused(world: World, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command that must be refused in one line, having read nothing outside and run nothing."""

    def run(*words: str) -> str:
        global _listening
        _opened.clear()
        _listening = True
        try:
            status = main([*words, "--cache", str(world.base / "cache")])
        finally:
            _listening = False
        said = capsys.readouterr()
        (line,) = [line for line in said.err.replace("\r", "\n").splitlines() if line.startswith("kick: ")]
        assert status in (1, 2) and said.out == "" and "Traceback" not in said.err
        assert len(line) < 700 and line.isprintable(), "one plain line"
        assert SECRET not in said.err and not world.proof.exists()
        outside = [path for path in _opened if path.startswith(str(world.outside)) or path == "/etc/passwd"]
        assert outside == []
        return line

    yield run
    assert not world.proof.exists()


@pytest.mark.parametrize("name", MODELS)
def test_model_folders(world: World, refused: Callable[..., str], name: str) -> None:
    change, named = MODELS[name]
    change(world)
    assert named in refused("compress", str(world.folder), "magnitude@0.5")


def test_the_good_folder_is_opened(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Every case above is refused for what was changed, not for something else."""
    assert main(["compress", str(world.folder), "magnitude@0.5", "--cache", str(world.base / "cache")]) == 0


def test_links_inside_a_hub_cache_are_followed(world: World) -> None:
    """There every file of a snapshot is a link to a blob of the same repository."""
    repository = world.base / "models--owner--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in world.folder.iterdir():
        path.rename(repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert main(["compress", str(snapshot), "magnitude@0.5", "--cache", str(world.base / "cache")]) == 0


# --- templates ---------------------------------------------------------------------------------------------

TEMPLATES = {
    "loops for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "multiplies a text": "{{ 'a' * 10 ** 11 }}",
    "reaches for classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "counts to 10^9": "{% for a in range(10 ** 9) %}{% endfor %}",
    "is no template": "{% for %}",
    "raises": "{{ raise_exception('no') }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "is deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_chat_templates(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from kick_core.models.loading import open_tokenizer
    from kick_core.models.source import find
    from kick_core.models.tokenization import dialogue
    from kick_core.spec import ModelRef

    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    (world.folder / "chat_template.jinja").write_text(TEMPLATES[name])
    tokenizer = open_tokenizer(find(ModelRef(str(world.folder))))
    with pytest.raises(KickError, match="the chat template of"):
        dialogue(tokenizer, ["hello"], [])


def test_a_good_template_is_rendered_as_before(tiny_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    messages = [{"role": "user", "content": "hello"}]
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat_template.render(tokenizer, messages) == wanted


# --- data --------------------------------------------------------------------------------------------------


def _write(name: str, data: bytes | str) -> Callable[[Path], Path]:
    def make(base: Path) -> Path:
        path = base / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return path

    return make


def _huge(base: Path) -> Path:
    """A line of a gigabyte, as a file with a hole."""
    with open(base / "line.jsonl", "wb") as file:
        file.truncate(1 << 30)
    return base / "line.jsonl"


def _npy(array: Any, **changes: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    data = target.getvalue()
    for old, new in changes.get("replace", ()):
        assert old in data
        data = data.replace(old, new)
    return data


def _pickled(base: Path) -> Path:
    array = np.empty(1, dtype=object)
    array[0] = _Payload(str(base / "proof"))
    return _write("ids.npy", _npy(array))(base)


DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a folder": (lambda base: base, "is no file here"),
    "a line of a gigabyte": (_huge, "at most"),
    "a gzip bomb named .jsonl": (_write("a.jsonl", gzip.compress(b"\0" * (9 << 20))), "UTF-8"),
    "a zip bomb named .npy": (lambda base: _write("a.npy", _zip())(base), "no single array"),
    "a zip bomb named .txt": (lambda base: _write("b.txt", _zip())(base), "UTF-8"),
    "a pickle in .npy": (_pickled, "no single array"),
    "a pickle named .safetensors": (_write("a.safetensors", pickle.dumps([1])), "no single array"),
    "an array that lies about its size": (
        _write("a.npy", _npy(np.zeros((4, 32), dtype=np.int64), replace=[(b"(4, 32)", b"(4, 99999999)")])), "array",
    ),
    "broken numbers": (_write("a.npy", _npy(np.full((4, 32), 0.5))), "whole numbers"),
    "token ids beyond the vocabulary": (_write("a.npy", _npy(np.full((4, 32), 2**40))), "vocabulary"),
    "token ids below zero": (_write("a.npy", _npy(np.full((4, 32), -1))), "vocabulary"),
    "an array of no rows": (_write("a.npy", _npy(np.zeros((0, 32), dtype=np.int64))), "whole numbers"),
    "100,000 brackets": (_write("a.jsonl", "[" * 100_000), "line 1"),
    "half a character": (_write("a.jsonl", '{"text": "\\ud800"}'), "line 1"),
    "text that is a number": (_write("a.jsonl", '{"text": 7}'), "line 1"),
    "no text": (_write("a.jsonl", '{"text": "a"}\n{"content": "b"}'), "line 2"),
    "only NUL bytes in JSONL": (_write("a.jsonl", b"\0" * 4000), "line 1"),
    "UTF-16": (_write("a.txt", "words ".encode("utf-16") * 99), "UTF-8"),
    "a device": (lambda base: Path("/dev/zero"), "is no file here"),
    "an address": (lambda base: Path("https://evil.example/a.txt"), "is no file here"),
    "a README with data_files": (
        _write("README.md", "---\nconfigs:\n- data_files: ../outside/secret.txt\n---\n"), "windows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_calibration_files(world: World, refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    make, named = DATA[name]
    small = ("--windows", "4", "--length", "32")
    line = refused("compress", str(world.folder), "wanda@0.5", "--calibration", str(make(tmp_path)), *small)
    assert named in line


def test_odd_text_is_only_text(world: World) -> None:
    """NUL, bidirectional marks, line separators inside a JSON line: calibrated on like any other text."""
    words = "a\0b \u202etxet\u2066 \u2028 next \u0085 line \U000e0041 " * 200
    (world.base / "a.jsonl").write_text(json.dumps({"text": words}, ensure_ascii=False) + "\n")
    given = ["--calibration", str(world.base / "a.jsonl"), "--windows", "4", "--length", "32"]
    assert main(["compress", str(world.folder), "wanda@0.5", *given, "--cache", str(world.base / "cache")]) == 0


# --- words -------------------------------------------------------------------------------------------------

WORDS = (
    "wanda@0.5,x=../../etc/passwd\n", "wanda@1e400", "wanda@nan", "wanda@9999999999:9999999999999", "@", "+", "a+b+c+d",
    "wanda@0.5+wanda@0.5", "rtn@4bit,group=99999999999999999999999", "rtn@4bit,group=1e9", "__import__('os')@0.5",
    "methods.wanda@0.5", "../wanda@0.5", "wanda@0.5,=1", "wanda@0.5," + "a=1," * 5000, "\0@0.5", "ẁanda@0.5",
    "wanda@٠.٥", "_sweep@0.5", "random@0.5,seed=" + "9" * 6000,
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:20].encode("ascii", "backslashreplace").decode())
def test_recipes(refused: Callable[..., str], world: World, word: str) -> None:
    refused("compress", str(world.folder), word)


NAMES = (
    "../../etc",
    "owner/../name",
    "file:///etc/passwd",
    "http://evil.example/m",
    "a/b/c",
    "-rf",
    "\\\\host\\share",
    "~",
)


@pytest.mark.parametrize("name", NAMES)
def test_model_names(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    refused("compress", "--", name, "magnitude@0.5") if name.startswith("-") else refused("compress", name, "wanda@0.5")


@pytest.mark.parametrize("key", ["../../etc/passwd", "weights1-../../x", "\0", "*", "", "weights1-" + "a" * 9999])
def test_cache_keys(refused: Callable[..., str], key: str) -> None:
    refused("show", key)
    refused("pin", key)


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_formulas_in_exports_are_text(text: str) -> None:
    import pandas as pd

    (_, row) = views.csv(pd.DataFrame({"output": [text], "n": [1]})).decode().splitlines(keepends=False)[:2]
    assert not row.lstrip('"').startswith(("=", "+", "-", "@", "\t", "\r"))


def test_there_are_enough_cases() -> None:
    assert len(MODELS) + len(TEMPLATES) + len(DATA) + len(WORDS) + len(NAMES) >= 100
