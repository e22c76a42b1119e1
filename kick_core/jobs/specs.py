"""What a job may be: a sweep, a prompt, or a sweep on a cluster; the tag `kind` of its `spec.json` says which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from kick_core import keys
from kick_core.errors import BadRequest, KickError
from kick_core.jobs.ray_cluster import joining
from kick_core.sweeps.playground import PromptJob as PromptJob
from kick_core.sweeps.request import SweepJob

Kind = Literal["sweep", "prompt", "cluster"]


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """A sweep and the Ray cluster that it runs on.

    Attributes:
        sweep: The sweep.
        address: HOST:PORT, or `local` for a cluster of this machine alone that ends with the sweep.
        workers: How many tasks run at once; None: as many as there is room for.
        gpus: GPUs of each task.

    Raises:
        BadRequest: For what no cluster could do.
    """

    sweep: SweepJob
    address: str = joining.LOCAL
    workers: int | None = None
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise BadRequest(f"--workers {self.workers}: at least 1")
        if self.gpus < 1:
            raise BadRequest(f"--gpus-per-task {self.gpus}: at least 1 (on a cluster without GPUs none is taken)")
        if self.sweep.device not in ("auto", "all", "cpu", "cuda"):
            raise BadRequest(f"--device {self.sweep.device} with --ray: auto, cpu or cuda; Ray deals out single GPUs")
        joining.check(self.address)

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values: the sweep's with `cluster` beside them."""
        cluster = {"address": self.address, "workers": self.workers, "gpus": self.gpus}
        return {**self.sweep.to_json(), "kind": "cluster", "cluster": cluster}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, of this version or an earlier one without a tag."""
        values = dict(data)
        cluster = values.pop("cluster")
        return cls(SweepJob.from_json(values), **cluster)


JobSpec = SweepJob | PromptJob | ClusterJob


def kind(spec: Mapping[str, Any]) -> Kind:
    """Which job a spec describes. Earlier versions wrote no tag; their prompts and clusters have a key of their own.

    Args:
        spec: As in `spec.json`.

    Raises:
        KickError: For a tag of a later version.
    """
    match spec.get("kind"):
        case None:
            return "prompt" if "prompt" in spec else "cluster" if "cluster" in spec else "sweep"
        case "sweep" | "prompt" | "cluster" as tag:
            return tag
        case other:
            raise KickError(f"a job of kind {str(other)[:40]!r} is of a later version of this program")


def read(spec: Mapping[str, Any]) -> JobSpec:
    """The job that a `spec.json` describes.

    Args:
        spec: Of this version or an earlier one.

    Raises:
        KickError: A later version wrote it.
    """
    readers: dict[Kind, type[SweepJob] | type[PromptJob] | type[ClusterJob]] = {
        "sweep": SweepJob, "prompt": PromptJob, "cluster": ClusterJob,
    }  # fmt: skip
    return readers[kind(spec)].from_json(spec)


def job_id(job: JobSpec) -> str:
    """The content key of a job: the same request is the same job.

    The tag is no part of it, nor are settings that older jobs did not name, where they have their defaults.

    Args:
        job: The request.
    """
    content = {name: _texts(value) for name, value in job.to_json().items() if name != "kind"}
    return keys.key("job", _without_newer(content))


_NEWER: Mapping[str, Any] = {
    "prompting": "auto", "min_tokens": 1, "bos": "auto", "fewshot_seed": None, "repeats": 1, "ids": [], "subject": "",
}  # fmt: skip


def _without_newer(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without settings of later versions that have their defaults, nested ones too."""
    return {
        name: _without_newer(value) if isinstance(value, Mapping) else value
        for name, value in content.items()
        if name not in _NEWER or value != _NEWER[name]
    }


def _texts(value: Any) -> Any:
    """Fractional numbers as text, as keyed payloads want them."""
    match value:
        case float():
            return repr(value)
        case Mapping():
            return {name: _texts(one) for name, one in value.items()}
        case list() | tuple():
            return [_texts(one) for one in value]
        case _:
            return value
