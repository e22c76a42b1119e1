"""`kick app`: the explorer in a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from argparse import Namespace
from pathlib import Path

from kick_core import provenance
from kick_core.errors import BadRequest, KickError
from kick_core.packs import gallery
from kick_core.store import default_root, open_store

PACKAGED = Path(__file__).resolve().parents[1] / "explorer" / "site"
"""Where the wheel puts app.py, pages/ and Streamlit's settings (pyproject.toml, force-include)."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run(args: Namespace) -> int:
    """`kick app`: the explorer on 127.0.0.1, until Ctrl-C."""
    command = app_command(args)
    environment = dict(os.environ)
    # resolved here: the server runs in the folder of app.py, whose .streamlit/config.toml it reads
    root = Path(args.cache).expanduser() if args.cache else default_root()
    environment["KICK_CACHE"] = str(root.resolve())
    if args.read_only:
        environment["KICK_READ_ONLY"] = "1"
    if args.no_gallery:
        environment["KICK_GALLERY"] = "0"
    else:  # the model that the first page shows is unpacked while the server starts
        threading.Thread(target=gallery.with_gallery, args=(open_store(root), ""), daemon=True).start()
    if args.demo:
        _start_demo(root)
    address = f"http://{args.host}:{args.port}"
    print(f"the explorer: {address} (Ctrl-C ends it)", file=sys.stderr)
    if not args.no_browser:
        threading.Thread(target=_open_browser, args=(address,), daemon=True).start()
    with subprocess.Popen(command, cwd=Path(command[4]).parent, env=environment) as server:
        # Ctrl-C reaches the server by itself; a service manager's SIGTERM reaches only this process
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        return server.wait()


def _start_demo(root: Path) -> None:
    """Start the pocket model's demo sweep as a job, which every page shows; what is done of it is not done again."""
    from kick_core import jobs

    job = jobs.start(open_store(root), jobs.demo("pocket-11m"))
    print(f"the demo sweep of the pocket model runs meanwhile (job {job.id[:12]})", file=sys.stderr)


def app_command(args: Namespace) -> list[str]:
    """The server's command line. Raises BadRequest for what would open it to others unasked."""
    if not 1 <= args.port <= 65535:
        raise BadRequest(f"port {args.port}: a number from 1 to 65535")
    if args.host not in LOOPBACK and not args.unsafe_no_auth:
        raise BadRequest(
            f"host {args.host}: whoever reaches it could read every result and start jobs, for nobody has to log in. "
            f"Put a proxy with a login before 127.0.0.1 and name it with --allow-host, or add --unsafe-no-auth "
            f"(better with --read-only)"
        )
    for name in args.allow_hosts:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", name):
            raise BadRequest(f"allowed host {name!r}: a name or address alone, without http:// and without a port")
    script = (provenance.checkout() or PACKAGED) / "app.py"
    if not script.is_file():
        raise KickError(f"{script} is missing: this installation of llm-kick-explorer is incomplete, install it again")
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.address", args.host]
    # headless also when a browser is opened: otherwise Streamlit's first start stops to ask for an e-mail address
    command += ["--server.port", str(args.port), "--server.headless", "true"]
    # watching every imported file for edits costs several times the app's own work; developers use `streamlit run`
    command += ["--server.fileWatcherType", "none"]
    beyond = [args.host] if args.host not in LOOPBACK else []
    if names := [*beyond, *args.allow_hosts]:
        # repeated flags: a list in one flag would be taken for one name and refuse everybody
        for name in ("localhost", "127.0.0.1", *names):
            command += ["--server.allowedHosts", name]
        for name in names:
            command += ["--server.corsAllowedOrigins", f"https://{name}"]
    return command


def _open_browser(address: str) -> None:
    """Open a browser window once the page is served, where there is a screen to open it on."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
        except OSError:
            time.sleep(0.2)
            continue
        webbrowser.open(address)
        return
