"""Ray itself: starting a cluster of this machine, joining another one, and submitting tasks to it.

The only file that imports Ray. Whoever reaches a Ray cluster runs code on it, by Ray's design; so a cluster that we
start listens on 127.0.0.1 only, has no dashboard and a fresh token that lives in the environment of its processes,
and another one is joined with its user's token.
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
_CONNECT = 5.0
"""Seconds to wait for a connection; Ray alone would try for minutes."""

Beside = TypeVar("Beside")


class Died(Exception):
    """A task's process or node is gone, which says nothing about the work itself."""


def available() -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        KickError: It is missing or too old.
    """
    try:
        installed = version("ray")
    except PackageNotFoundError:
        raise KickError("--ray needs the package ray: pip install -e .[ray]") from None
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise KickError(
            f"ray {installed} is too old, {oldest} is the first that asks for tokens everywhere: pip install -e .[ray]"
        )


def address(text: str) -> str:
    """The address that `--ray` means.

    Args:
        text: HOST:PORT is kept; `auto` is RAY_ADDRESS where it is set, else `local`.
    """
    named = os.environ.get("RAY_ADDRESS", "") if text == "auto" else text
    return LOCAL if named in ("", "auto") else named


def check(address: str) -> None:
    """Refuse what cannot be a cluster's address.

    Args:
        address: HOST:PORT or `local`.

    Raises:
        BadRequest: It is neither.
    """
    if address == LOCAL:
        return
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadRequest(
            f"Ray address {address[:80]!r}: give HOST:PORT as `ray start --head` prints it, and run the command on a "
            f"node of that cluster; or auto: RAY_ADDRESS if it is set, else a cluster of this machine alone"
        )


def described(address: str) -> str:
    """A cluster in words.

    Args:
        address: HOST:PORT or `local`.
    """
    return "a Ray cluster of this machine" if address == LOCAL else f"the Ray cluster at {address}"


@contextlib.contextmanager
def joined(address: str, job: str, workers: int | None) -> Iterator[Cluster]:
    """Start or join a cluster and leave it again; one that we started ends with it, or with this process.

    Args:
        address: HOST:PORT or `local`.
        job: The id of the job that it is for.
        workers: How many tasks run at once.

    Yields:
        The joined cluster.

    Raises:
        KickError: Ray is missing, does not start, does not answer or does not let us in.
    """
    available()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = _start(job, workers) if address == LOCAL else contextlib.nullcontext(_options_of(address))
    with started as options:
        handler = signal.getsignal(signal.SIGTERM)
        import ray

        try:
            ray.init(**options, configure_logging=False, log_to_driver=True)
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


def _options_of(address: str) -> dict[str, Any]:
    """How another cluster is joined. Raises KickError without a token, and when nothing answers."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and not _has_token():
        raise KickError(
            f"there is no token for {described(address)}: put the cluster's into ~/.ray/auth_token (mode 0600) or "
            f"into RAY_AUTH_TOKEN"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
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
        f"{described(address)} does not let us in ({first}): the token must be the cluster's (RAY_AUTH_TOKEN or "
        f"~/.ray/auth_token), this machine one of its nodes, and its Ray and Python those of this environment"
    )


def own_folder(path: Path) -> Path:
    """Make a folder that only we can enter, in a place that others can write to.

    Args:
        path: The folder; it may be there already.

    Raises:
        KickError: Somebody else's is there, or others can enter it.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise KickError(
            f"{path} is not a folder of yours alone: remove it, or set KICK_LOCAL_CACHE to a folder of this node"
        )
    return path


@dataclass(frozen=True, slots=True)
class Cluster:
    """A joined cluster.

    Attributes:
        ray: The module.
        address: For messages.
    """

    ray: Any
    address: str

    def device(self, kind: str, gpus: int) -> str:
        """The kind of device that tasks run on.

        Args:
            kind: As requested: `auto`, `all`, `cpu` or `cuda`.
            gpus: GPUs of each task.

        Raises:
            KickError: No node has so many GPUs.
        """
        most = max((int(node["Resources"].get("GPU", 0)) for node in self.ray.nodes() if node["Alive"]), default=0)
        if kind == "cpu" or (most == 0 and kind == "auto"):
            return "cpu"
        if 0 < most < gpus or (most == 0 and self.address == "this machine"):
            raise KickError(f"a task needs {gpus} GPUs, and no node of {self.address} has more than {most}")
        return "cuda"

    def cores(self, device: str, gpus: int, workers: int | None) -> int:
        """The cores of a task: its GPUs' share of their node; without GPUs one, or the workers' share of all.

        Args:
            device: `cpu` or `cuda`.
            gpus: GPUs of each task.
            workers: How many tasks run at once; None: as many as there are resources for.
        """
        resources = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if device == "cuda":
            shares = [one.get("CPU", 0) * gpus / one["GPU"] for one in resources if one.get("GPU")]
            return max(1, int(min(shares, default=1)))
        cores = [one.get("CPU", 0) for one in resources]
        return max(1, int(min(*cores, sum(cores) // workers, sum(cores)))) if workers else 1

    def begin(self, work: Callable[..., Any], order: Mapping[str, Any], gpus: int, node: str) -> Any:
        """Submit one task.

        Args:
            work: The function, a generator of news.
            order: Its argument, plain JSON values.
            gpus: How many it needs.
            node: Where it should run, if that node still lives; empty: anywhere.

        Returns:
            The stream of its news.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        affinity = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
        # Ray repeats nothing by itself: a repeated stream must say the same again, and a task that resumes does not
        options = {
            "num_cpus": order["cores"],
            "num_gpus": gpus,
            "max_retries": 0,
            "num_returns": "streaming",
        } | affinity
        return self.ray.remote(work).options(**options).remote(dict(order))

    def news(self, streams: Sequence[Any], seconds: float, tasks: Sequence[Beside]) -> list[Beside]:
        """Wait for news.

        Args:
            streams: Of running tasks.
            seconds: How long to wait at most.
            beside: One object per stream.

        Returns:
            The objects of the streams that have news.
        """
        ready, _ = self.ray.wait(list(streams), num_returns=1, timeout=seconds, fetch_local=False)
        return [
            task
            for stream, task in zip(streams, tasks, strict=True)
            if any(stream is stream_ready for stream_ready in ready)
        ]

    def next(self, stream: Any) -> dict[str, Any]:
        """The next news of a task.

        Args:
            stream: With news.

        Raises:
            Died: Its process or node is gone.
        """
        try:
            news: dict[str, Any] = self.ray.get(next(stream))
            return news
        except StopIteration:
            raise Died("it ended without news") from None
        except (self.ray.exceptions.RayTaskError, self.ray.exceptions.TaskUnschedulableError) as error:
            # its code cannot even begin there
            lines = str(error).splitlines() or [type(error).__name__]
            return {"failed": f"it cannot run on the cluster ({lines[-1]})", "trace": str(error)}
        except self.ray.exceptions.RayError as error:
            raise Died(f"{type(error).__name__}, {(str(error).splitlines() or [''])[0]}") from error
