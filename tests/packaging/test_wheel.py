"""The wheel is the whole product: built, installed where there is no checkout, opened in a browser.

The environment has nothing of ours but the wheel. Its dependencies are those of the environment that runs the tests,
added as a path: installing torch once more takes minutes. CI's workflow does install everything (`wheel` in
.github/workflows/ci.yml).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kick_core.packs import gallery
from kick_core.packs.container import read_header
from tests.browser.conftest import opener
from tests.browser.test_exposure import shake as handshake
from tests.served import answering, free_port

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


class Installed(NamedTuple):
    """An environment that holds the wheel."""

    kick: Path
    site_packages: Path
    home: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (site_packages,) = (folder / "venv").glob("lib/python*/site-packages")
    # a path in a .pth file is searched, but the .pth files inside it (an editable kick_core) are not read
    (site_packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    home = folder / "home"
    home.mkdir()
    dropped = ("KICK_", "PYTHONPATH", "STREAMLIT_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "caches"), "OMP_NUM_THREADS": "1"}
    return Installed(python.with_name("kick"), site_packages, home, environment)


@pytest.fixture(scope="module")
def measured(installed: Installed) -> Iterator[Any]:
    """What `kick evaluate` says, with the default cache, in a folder that has nothing to do with the project."""
    command = [
        installed.kick,
        "evaluate",
        "pocket-4m",
        "magnitude@0.5",
        "--task",
        "factoid_qa",
        "--limit",
        "8",
        "--json",
    ]
    done = subprocess.run(command, cwd=installed.home, env=installed.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout)


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kick_core"}
    tracked = subprocess.run(["git", "ls-files", "kick_core"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0 and tracked.stdout:
        assert set(tracked.stdout.split()) <= {*names, "kick_core/py.typed"}
    assert {
        "kick_core/py.typed",
        "kick_core/explorer/site/app.py",
        "kick_core/explorer/site/.streamlit/config.toml",
        *(f"kick_core/explorer/site/pages/{path.name}" for path in (ROOT / "pages").glob("*.py")),
    } <= set(names)
    assert zipfile.ZipFile(wheel).testzip() is None


def test_the_package_comes_from_the_wheel(installed: Installed) -> None:
    code = "import kick_core, sys; print(kick_core.__file__); print('pages' in sys.modules)"
    done = subprocess.run(
        [installed.kick.with_name("python"), "-c", code],
        cwd=installed.home, env=installed.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.split()[0]).is_relative_to(installed.site_packages)


def test_the_gallery_is_there_before_anything_is_computed(installed: Installed) -> None:
    code = (
        "from kick_core import views; from kick_core.packs import gallery; "
        "store = gallery.with_gallery(views.open_store()); print(*views.models(store), sep='\\n')"
    )
    done = subprocess.run(
        [installed.kick.with_name("python"), "-c", code], cwd=installed.home, capture_output=True, text=True,
        env={**installed.environment, "XDG_CACHE_HOME": str(installed.home / "fresh")}, check=True,
    )  # fmt: skip
    shipped = {read_header(path).model for path in gallery.PACKED.iterdir()}
    assert set(done.stdout.splitlines()) == shipped != set()


def test_results_go_to_the_users_cache_folder(installed: Installed, measured: Any) -> None:
    assert (installed.home / "caches" / "kick" / "VERSION").is_file()
    assert not (installed.site_packages / "cache").exists()
    assert [result["n"] for result in measured["results"]] == [8]


def test_kick_app_serves_its_pages(installed: Installed, measured: Any, chrome: Any) -> None:
    port = free_port()
    command = [str(installed.kick), "app", "--port", str(port), "--no-browser"]
    with answering(command, port, installed.home, installed.environment):
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health").status == 200
        # the settings come with the package: a page of another site must not reach the app by DNS rebinding
        assert handshake(("127.0.0.1", port), "evil.example", "http://evil.example") == 403
        tab = opener(chrome, f"http://127.0.0.1:{port}")()
        assert "pocket-4m" in tab.open("/").text()
        assert "magnitude 50 %" in tab.open("/evaluate").text()
        tab.check()
    with pytest.raises(OSError):  # ending `kick app` ends its server
        urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2)


def test_extras_and_scripts_are_declared(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = archive.read(name).decode()
    assert "Operating System :: POSIX" in metadata
    assert all(f"Provides-Extra: {extra}" in metadata for extra in project["optional-dependencies"])
