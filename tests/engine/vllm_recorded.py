"""What a real vLLM answered to one evaluation, and a stand-in that answers so again.

`vllm_recorded.json` holds the choices of vLLM 0.32.0 (CPU, float32) by the weights that were served and by request.
The stand-in is an environment of its own with a package named vllm, as the real one is: it is found, started, asked
over its socket and ended by the same code. To record again: `KICK_VLLM=… python -m tests.engine.vllm_recorded`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import venv
from pathlib import Path

RECORDED = Path(__file__).with_suffix(".json")
RECIPES = ["magnitude@0.3"]
TASKS = ["multiple_choice", "factoid_qa", "instructions", "perplexity", "word_perplexity"]
LIMIT = 2

_SERVER = """
import argparse, hashlib, http.server, json, pathlib, socketserver

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=pathlib.Path)
parser.add_argument("--uds")
given, _ = parser.parse_known_args()
weights = hashlib.sha256((given.model / "model.safetensors").read_bytes()).hexdigest()[:16]
answers = json.loads(pathlib.Path(RECORDED).read_text())
if weights not in answers:
    raise SystemExit(f"ValueError: nothing was recorded of the weights {weights}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.tell(200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = answers[weights].get(hashlib.sha256(body).hexdigest()[:16])
        self.tell(200, {"choices": [found]}) if found else self.tell(400, {"error": "this was never asked"})

    def tell(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


Server(given.uds, Handler).serve_forever()
"""


def stand_in(place: Path, server: str = "") -> Path:
    """An environment with a package that answers as vLLM did; returns its Python."""
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python3.*/site-packages")
    home = site / "vllm" / "entrypoints" / "openai"
    home.mkdir(parents=True)
    for folder in (home, home.parent, home.parent.parent):
        (folder / "__init__.py").write_text("")
    (home / "api_server.py").write_text(server or f"RECORDED = {str(RECORDED)!r}\n{_SERVER}")
    for name, version in (("vllm", "0.32.0+cpu"), ("torch", "2.13.0+cpu"), ("transformers", "5.19.0")):
        about = site / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return place / "bin" / "python"


def command(cache: Path | str, *more: str) -> list[str]:
    """The evaluation that was recorded."""
    tasks = [word for task in TASKS for word in ("--task", task)]
    asked = ["evaluate", "pocket-4m", *RECIPES, *tasks, "--limit", str(LIMIT), "--dtype", "float32", "--device", "cpu"]
    return [*asked, "--cache", str(cache), *more]


def record() -> None:
    """Run the evaluation with the real vLLM and keep what it said."""
    from kick_core import cli
    from kick_core.engine import server as serving

    said: dict[str, dict[str, object]] = {}
    serve, ask = serving.serve, serving.Server.ask

    def serve_named(found, folder, *rest):  # type: ignore[no-untyped-def]
        weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
        said[weights] = {}
        return serve(found, folder, *rest)

    def ask_noted(self, how, where, body=None):  # type: ignore[no-untyped-def]
        status, answer = ask(self, how, where, body)
        if body is not None:
            (choice,) = json.loads(answer)["choices"]
            said[list(said)[-1]][hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]] = choice
        return status, answer

    serving.serve, serving.Server.ask = serve_named, ask_noted
    with tempfile.TemporaryDirectory() as cache:
        if cli.main(command(cache, "--engine", "vllm,enforce_eager=true")):
            sys.exit(1)
    RECORDED.write_text(json.dumps(said, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
