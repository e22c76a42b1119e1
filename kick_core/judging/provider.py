"""The answering side of a judging: a Protocol of one method, and many questions to it at once."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from kick_core.errors import BadRequest
from kick_core.records import Question, Reply

PATIENCE = 8
"""After so many failed calls in a row the provider is given up; each had its retries before."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that got no reply, after its retries.

    Attributes:
        key: Of the question.
        why: The reason, in one line without secrets.
        final: No other call would get a reply either.
    """

    key: str
    why: str
    final: bool = False


class Provider(Protocol):
    """A judge that answers questions; several threads use it at once.

    Its replies are stored word for word, so they must hold no secret: a provider removes its own key from them.
    """

    def ask(self, question: Question) -> Reply | Failure:
        """Send one question, with whatever retries the provider has.

        Args:
            question: To be answered.
        """

    def close(self) -> None:
        """Free resources; no question follows."""


def replies(provider: Provider, questions: Sequence[Question], threads: int) -> Iterator[Reply | Failure]:
    """Send all questions, several at once, and yield what comes back in the order of its arrival.

    Ends early when a failure is final or `PATIENCE` calls in a row have failed; calls under way are then awaited.

    Args:
        provider: The judge.
        questions: Each once.
        threads: Calls at once, from 1 to 256.

    Raises:
        BadRequest: The number of threads is out of range.
    """
    if not 1 <= threads <= 256:
        raise BadRequest(f"concurrency {threads}: from 1 to 256 calls at once")
    todo, done = deque(questions), queue.SimpleQueue[Reply | Failure | BaseException | None]()
    stopped, lock = threading.Event(), threading.Lock()
    failed = 0

    def work() -> None:
        nonlocal failed
        try:
            while not stopped.is_set() and todo:
                reply = provider.ask(todo.popleft())
                with lock:
                    failed = failed + 1 if isinstance(reply, Failure) else 0
                    if failed >= PATIENCE or (isinstance(reply, Failure) and reply.final):
                        stopped.set()
                done.put(reply)
        except IndexError:
            pass  # another thread took the last one
        except BaseException as error:  # raised again where it is seen
            done.put(error)
        finally:
            done.put(None)

    working = min(threads, len(todo))
    for _ in range(working):
        # daemons, and not a ThreadPoolExecutor, whose threads the interpreter joins when it ends: after Ctrl-C nothing
        # may wait minutes for an endpoint that is silent
        threading.Thread(target=work, daemon=True).start()
    try:
        while working:
            reply = done.get()
            if reply is None:
                working -= 1
            elif isinstance(reply, BaseException):
                raise reply
            else:
                yield reply
    finally:
        stopped.set()
