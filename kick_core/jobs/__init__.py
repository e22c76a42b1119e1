"""Work that outlives the page that requested it: one detached process per request, its state on disk.

    jobs/<id>/  spec.json   the request (jobs.specs)
                state.json  how far it is, replaced in one step (jobs.state)
                log.txt     whatever the worker printed
                cancel      present: please stop
                lock        held by the worker for its whole life

A worker that Streamlit's script thread ran would die at the next move of a slider; a process survives reloads,
page changes and restarts of the server. Its lock alone says whether it lives: the kernel lets go when a process
ends, however it ends, so there are no stale process numbers. The lock is taken *before* the worker starts and
inherited by it, so of eight people who press the button at once one starts it and seven join. Jobs queue for the
one device behind a second lock. An id is the content key of its request.
"""

from kick_core.jobs.lifecycle import PATIENCE, READ_ONLY, again, cancel, forget, read_only, start, take
from kick_core.jobs.requests import QUESTIONS, calibration, check, demo, keep_questions, prompt, request, task_names
from kick_core.jobs.specs import JobSpec, job_id
from kick_core.jobs.state import ACTIVE, SILENCE, Job, State, job, jobs, log, place, write

__all__ = [
    "ACTIVE",
    "PATIENCE",
    "QUESTIONS",
    "READ_ONLY",
    "SILENCE",
    "Job",
    "JobSpec",
    "State",
    "again",
    "calibration",
    "cancel",
    "check",
    "demo",
    "forget",
    "job",
    "job_id",
    "jobs",
    "keep_questions",
    "log",
    "place",
    "prompt",
    "read_only",
    "request",
    "start",
    "take",
    "task_names",
    "write",
]
