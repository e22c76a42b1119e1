"""Ray itself: starting a cluster of this machine, joining one of others, and asking it for tasks.

The only file that imports Ray. Whoever reaches a Ray cluster runs code on it, by Ray's design; so a cluster that we
start listens on 127.0.0.1 only, has no dashboard and a fresh token that lives in the environment of its processes,
and one of others is joined with the token of its user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from kick_core.errors import BadRequest, KickError

LOCAL = "local"
"""The address of a cluster that is started for one sweep, on this machine alone."""
OLDEST = (2, 59)
"""The first Ray whose token authentication covers everything that listens."""
_OBJECTS = 80 << 20
"""Bytes of Ray's object store, about the least that it takes: progress is all that goes through it."""
_KNOCK = 5.0
"""Seconds to wait for an answer at an address; Ray alone would try for minutes."""

Other = TypeVar("Other")


class Died(Exception):
    """A task's process or node is gone; nothing is said about the work itself."""


def available() -> None:
    """Raises KickError where Ray is missing or too old. Does not import it."""
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise KickError("--ray needs the package ray: pip install -e .[ray]") from None
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise KickError(
            f"ray {found} is too old, {wanted} is the first that asks for tokens everywhere: pip install -e .[ray]"
        )


def address(asked: str) -> str:
    """What `--ray` means: HOST:PORT as it is; `auto` is RAY_ADDRESS where it is set, else `local`."""
    named = os.environ.get("RAY_ADDRESS", "") if asked == "auto" else asked
    return LOCAL if named in ("", "auto") else named


def check(address: str) -> None:
    """Raises BadRequest for what cannot be a cluster's address."""
    if address == LOCAL:
        return
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadRequest(
            f"Ray address {address[:80]!r}: give HOST:PORT as `ray start --head` prints it, and run the command on a "
            f"node of that cluster; or auto: RAY_ADDRESS if it is set, else a cluster of this machine alone"
        )


def called(address: str) -> str:
    return "a Ray cluster of this machine" if address == LOCAL else f"the Ray cluster at {address}"


@contextlib.contextmanager
def joined(address: str, job: str, workers: int | None) -> Iterator[Cluster]:
    """Start or join the cluster and leave it again; one that we started ends with it, or with this process."""
    available()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = _start(job, workers) if address == LOCAL else contextlib.nullcontext(_given(address))
    with started as how:
        handler = signal.getsignal(signal.SIGTERM)
        import ray

        try:
            ray.init(**how, configure_logging=False, log_to_driver=True)
        except SystemExit:  # Ray's own answer to SIGTERM, which would end a job without a word; ours says what happened
            signal.signal(signal.SIGTERM, handler)
            signal.raise_signal(signal.SIGTERM)
            raise
        except Exception as error:
            raise _not_joined(address, error) from error
        signal.signal(signal.SIGTERM, handler)
        try:
            yield Cluster(ray, "this machine" if address == LOCAL else address)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _start(job: str, workers: int | None) -> Iterator[dict[str, Any]]:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray replaces 127.0.0.1 by the machine's address, and then listens on all, unless it takes itself for alone
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # short, because Unix sockets lie in it; named by the job, so that what a killed driver left is taken away
    place = Path("/tmp") / f"kick-ray-{os.getuid()}-{job[-12:]}"
    shutil.rmtree(place, ignore_errors=True)
    own_folder(place)
    try:
        yield {
            "address": LOCAL,
            "num_cpus": max(os.cpu_count() or 1, workers or 1),
            "include_dashboard": False,
            "object_store_memory": _OBJECTS,
            "_temp_dir": str(place / "ray"),
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _given(address: str) -> dict[str, Any]:
    """How a cluster of others is joined. Raises KickError without a token, and when nothing answers."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and not _has_token():
        raise KickError(
            f"there is no token for {called(address)}: put the cluster's into ~/.ray/auth_token (mode 0600) or "
            f"into RAY_AUTH_TOKEN"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except OSError as error:
        raise KickError(f"nothing answers at {address} ({error}): is the head node up (`ray start --head`)?") from error
    return {"address": address}


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


def _not_joined(address: str, error: Exception) -> KickError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if address == LOCAL:
        return KickError(f"Ray does not start on this machine ({first})")
    return KickError(
        f"{called(address)} does not let us in ({first}): the token must be the cluster's (RAY_AUTH_TOKEN or "
        f"~/.ray/auth_token), this machine one of its nodes, and its Ray and Python those of this environment"
    )


def own_folder(path: Path) -> Path:
    """Make a folder of ours alone in a place that others can write to. Raises KickError when another's is there."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise KickError(
            f"{path} is not a folder of yours alone: remove it, or set KICK_LOCAL_CACHE to a folder of this node"
        )
    return path


@dataclass(frozen=True, slots=True)
class Cluster:
    """A joined cluster. `ray` is the module."""

    ray: Any
    address: str

    def device(self, asked: str, gpus: int) -> str:
        """The kind of device that tasks run on. Raises KickError when no node has so many GPUs."""
        most = max((int(node["Resources"].get("GPU", 0)) for node in self.ray.nodes() if node["Alive"]), default=0)
        if asked == "cpu" or (most == 0 and asked == "auto"):
            return "cpu"
        if 0 < most < gpus or (most == 0 and self.address == "this machine"):
            raise KickError(f"a task shall get {gpus} GPUs, and no node of {self.address} has more than {most}")
        return "cuda"

    def cores(self, device: str, gpus: int, workers: int | None) -> int:
        """The cores that a task gets: its GPUs' share of their node; without GPUs one, or `workers`' share of all."""
        found = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if device == "cuda":
            shares = [one.get("CPU", 0) * gpus / one["GPU"] for one in found if one.get("GPU")]
            return max(1, int(min(shares, default=1)))
        cores = [one.get("CPU", 0) for one in found]
        return max(1, int(min(*cores, sum(cores) // workers, sum(cores)))) if workers else 1

    def begin(self, work: Callable[..., Any], order: Mapping[str, Any], gpus: int, node: str) -> Any:
        """Hand out one task; it runs where there is room, on `node` if that still lives. Returns what it will say."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        beside = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
        # Ray repeats nothing by itself: a repeated stream must say the same again, and a task that resumes does not
        options = {"num_cpus": order["cores"], "num_gpus": gpus, "max_retries": 0, "num_returns": "streaming"} | beside
        return self.ray.remote(work).options(**options).remote(dict(order))

    def news(self, streams: Sequence[Any], seconds: float, beside: Sequence[Other]) -> list[Other]:
        """Those `beside` the streams that say something within some seconds."""
        ready, _ = self.ray.wait(list(streams), num_returns=1, timeout=seconds, fetch_local=False)
        return [other for stream, other in zip(streams, beside, strict=True) if any(stream is one for one in ready)]

    def next(self, stream: Any) -> dict[str, Any]:
        """What a task says next. Raises Died when its process or node is gone."""
        try:
            said: dict[str, Any] = self.ray.get(next(stream))
            return said
        except StopIteration:
            raise Died("it ended without a word") from None
        except (self.ray.exceptions.RayTaskError, self.ray.exceptions.TaskUnschedulableError) as error:
            # its code cannot even begin there
            lines = str(error).splitlines() or [type(error).__name__]
            return {"failed": f"it cannot run on the cluster ({lines[-1]})", "trace": str(error)}
        except self.ray.exceptions.RayError as error:
            raise Died(f"{type(error).__name__}, {(str(error).splitlines() or [''])[0]}") from error
