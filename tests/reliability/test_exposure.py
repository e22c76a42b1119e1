"""The explorer serves its own pages and nothing else (who may be let in: tests/browser/test_exposure.py)."""

from __future__ import annotations

import http.client
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served import started

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_that_protect_it_are_there() -> None:
    server = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["server"]
    assert server["address"] == "127.0.0.1" and server["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert server["enableCORS"] and server["enableXsrfProtection"] and not server["enableStaticServing"]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The explorer over an empty cache, with a secret beside it."""
    cache = tmp_path_factory.mktemp("served") / "cache"
    cache.mkdir()
    (cache / "secret.txt").write_text("SENTINEL-7391")
    with started(cache) as (number, _):
        yield number


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """A request with the path as it is: no client tidies it up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


ODD = (
    "/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "//etc/passwd",
    "/static/../../../../../etc/passwd", "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/app/static/../app.py", "/app/static/secret.txt", "/media/../../app.py", "/media/%2e%2e%2fapp.py",
    "/_stcore/../app.py",
    "/component/x/../../../../etc/passwd", "/component/../../app.py", "/cache/secret.txt", "/.streamlit/config.toml",
    "/.streamlit/secrets.toml", "/app.py", "/pages/home.py", "/kick_core/spec.py", "/\\..\\..\\etc\\passwd",
    "/static/....//....//etc/passwd", "/media/" + "a" * 4000, "/_stcore/upload_file/x/y", "/_stcore/message?hash=../x",
)  # fmt: skip


@pytest.mark.parametrize("path", ODD, ids=lambda path: path[:40])
def test_no_path_leads_to_a_file(port: int, path: str) -> None:
    status, body = get(port, path)
    for content in (
        b"root:x:",
        b"SENTINEL-7391",
        b"from pages.parts.frame import main",
        b"allowedHosts",
        b"def parse(",
    ):
        assert content not in body
    assert status in (307, 400, 403, 404, 405) or (status, body) == get(port, "/"), "an error or the app's own page"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_no_upload_without_a_session(port: int, method: str) -> None:
    assert get(port, "/_stcore/upload_file/session/file", method)[0] >= 400


def test_it_listens_here_only(port: int) -> None:
    """Other addresses of this machine do not answer on the port."""
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((str(address), port)) != 0
