"""An OpenAI-compatible endpoint on 127.0.0.1 that misbehaves on demand.

`judge` gives the reply's text for a request's messages, joined. `faults` are used up one a request, in order: a number
is an HTTP status, else a name of `_FAULTS`. Everything that was asked is in `asked`, with the key that came.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


class FakeJudge:
    """Serves until it is closed; use as a context manager."""

    def __init__(self, judge: Callable[[str], str], faults: Iterable[Any] = (), echo: bool = False) -> None:
        self.judge, self.faults, self.echo = judge, deque(faults), echo
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.seen_headers: list[str] = []
        self.at_once = self.most_at_once = 0
        self.headers: dict[str, str] = {"Retry-After-Ms": "1"}
        self.delay = 0.0
        self.lock = threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def prompts(self) -> list[str]:
        return [request["messages"][1]["content"] for request in self.asked]

    def __enter__(self) -> FakeJudge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(fake: FakeJudge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.asked.append(body)
                fake.keys.append(self.headers.get("Authorization", ""))
                fake.seen_headers.append(str(self.headers))
                fault = fake.faults.popleft() if fake.faults else None
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            try:
                time.sleep(fake.delay)
                self._answer(body, fault)
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with fake.lock:
                    fake.at_once -= 1

        def _answer(self, body: dict[str, Any], fault: Any) -> None:
            said = fake.judge("\n\n".join(message["content"] for message in body["messages"]))
            echoed = str(self.headers) if fake.echo else ""
            whole = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "fake-judge-1",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said + echoed}}
                ],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
            }
            data = json.dumps(whole).encode()
            match fault:
                case None:
                    self._send(200, data)
                case int():
                    self._send(fault, json.dumps({"error": {"message": f"fault {fault} {echoed}"}}).encode())
                case "no json":
                    self._send(200, b"<html>bad gateway " + echoed.encode() + b"</html>", "text/html")
                case "half json":
                    self._send(200, data[: len(data) // 2])
                case "no choices":
                    self._send(200, json.dumps({**whole, "choices": []}).encode())
                case "null":
                    self._send(200, b"null")
                case "truncated":  # announces more than it sends
                    self._send(200, data[: len(data) // 2], length=len(data))
                    self.close_connection = True
                case "cut off":
                    whole["choices"][0]["finish_reason"] = "length"
                    self._send(200, json.dumps(whole).encode())
                case "silent":
                    time.sleep(3)
                    self.close_connection = True
                case "drip":  # never silent for long, never done
                    self._head(200, "application/json", 1000)
                    for _ in range(50):
                        self.wfile.write(b" ")
                        time.sleep(0.1)
                    self.close_connection = True
                case "huge":
                    self._head(200, "application/json", 1 << 40)
                    for _ in range(200):
                        self.wfile.write(b" " * (1 << 16))
                    self.close_connection = True
                case ("redirect", where):
                    self.send_response(307)
                    self.send_header("Location", where)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

        def _head(self, status: int, kind: str, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            if status != 200:
                for name, value in fake.headers.items():
                    self.send_header(name, value)
            self.end_headers()

        def _send(self, status: int, data: bytes, kind: str = "application/json", length: int | None = None) -> None:
            self._head(status, kind, len(data) if length is None else length)
            self.wfile.write(data)

    return Handler
