"""Who can reach the app: other sites cannot, not even by a name that resolves to this machine."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kick_core.cli import main
from kick_core.cli.app import app_command
from kick_core.cli.arguments import parser
from kick_core.errors import BadRequest
from kick_core.store import open_store
from tests.browser.conftest import serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with serving(open_store(tmp_path_factory.mktemp("exposed") / "cache").root) as address:
        parts = urlsplit(address)
        yield str(parts.hostname), int(parts.port or 0)


def shake(place: tuple[str, int], host: str, origin: str | None) -> int:
    """The status of a websocket handshake with these headers: 101 is let in."""
    lines = [
        "GET /_stcore/stream HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13",
        *([f"Origin: {origin}"] if origin else []),
    ]  # fmt: skip
    with socket.create_connection(place, timeout=10) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(line.recv(4096).split(b" ")[1])


def test_the_apps_own_page_is_let_in(place: tuple[str, int]) -> None:
    for name in ("127.0.0.1", "localhost"):
        here = f"{name}:{place[1]}"
        assert shake(place, here, f"http://{here}") == 101


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", "http://evil.example"),  # DNS rebinding: the browser believes that this machine is evil's
        ("evil.example:{port}", "http://evil.example:{port}"),
        ("127.0.0.1:{port}", "http://evil.example"),  # a page of another site
        ("127.0.0.1:{port}", "null"),  # a sandboxed frame
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example"),
    ],
)
def test_a_foreign_page_is_refused(place: tuple[str, int], host: str, origin: str) -> None:
    assert shake(place, host.format(port=place[1]), origin.format(port=place[1])) == 403


def test_it_listens_on_this_machine_only(place: tuple[str, int]) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError), socket.create_connection((address, place[1]), timeout=2):
            pass


def command(*words: str) -> list[str]:
    return app_command(parser().parse_args(["app", *words]))


def test_beyond_this_machine_only_when_it_is_said() -> None:
    with pytest.raises(BadRequest, match="nobody has to log in"):
        command("--host", "0.0.0.0")
    assert "0.0.0.0" in command("--host", "0.0.0.0", "--unsafe-no-auth", "--read-only")
    assert main(["app", "--host", "0.0.0.0"]) == 2


def test_a_proxys_name_is_added_and_this_machine_stays() -> None:
    words = command("--allow-host", "kick.example.org")
    hosts = [words[i + 1] for i, word in enumerate(words) if word == "--server.allowedHosts"]
    assert hosts == ["localhost", "127.0.0.1", "kick.example.org"]
    assert words[words.index("--server.corsAllowedOrigins") + 1] == "https://kick.example.org"
    assert "--server.allowedHosts" not in command()


@pytest.mark.parametrize("name", ["https://kick.example.org", "kick.example.org:8501", "*", "-x", "a b", ""])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="allowed host"):
        command(f"--allow-host={name}")


def test_the_allowed_name_is_let_in_and_others_are_not(tmp_path: Path) -> None:
    words = command("--allow-host", "kick.example.org")
    flags = words[words.index("--server.allowedHosts") :]
    with serving(open_store(tmp_path / "cache").root, *flags) as address:
        parts = urlsplit(address)
        place = (str(parts.hostname), int(parts.port or 0))
        assert shake(place, "kick.example.org", "https://kick.example.org") == 101
        assert shake(place, f"127.0.0.1:{place[1]}", f"http://127.0.0.1:{place[1]}") == 101
        assert shake(place, "evil.example", "http://evil.example") == 403
