"""Asking an OpenAI-compatible endpoint, and keeping its key out of everything else.

The key is read from the environment when the client is made and stands nowhere but in the client: not in a
record, a key, a message or an exception. Endpoints and the proxies before them have echoed request headers,
so whatever comes back is searched for the key in its usual disguises before it is kept or shown.

Retries are the openai client's own: it tries again after 408, 409, 429, 5xx, timeouts and broken connections
(a body that ends too early is one), waits as long as `Retry-After` says up to two minutes, else from half a
second to eight with jitter. What it lacks is added: a limit on the time and size of one reply, since its
timeout only bounds the wait for the next byte. A whole reply that is no chat completion is not asked for again
at once; it counts as failed, and the same command asks it again.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from kick_core.errors import BadRequest, KickError
from kick_core.judging.provider import Failure
from kick_core.judging.questions import Judge
from kick_core.records import Question, Reply

if TYPE_CHECKING:
    import httpx2
    import openai

DEFAULT_URL = "https://api.openai.com/v1"
RETRIES = 5
TIMEOUT = 180.0
"""Seconds that one reply may take, from its first byte on; connecting may take 10."""

REPLY_BYTES = 4 << 20

_OPENAIS_OWN = ("OpenAI-Organization", "OpenAI-Project")
"""Headers that the client fills from the environment."""

_FATAL = (401, 403, 404)
"""Statuses that every further call would meet again: no right, or no such model or address."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a judge. Holds no key.

    Attributes:
        url: The base URL, up to `/v1`.
        host: Its host and port, as run cards name it.
    """

    url: str
    host: str

    @property
    def in_the_clear(self) -> bool:
        """Whether key and answers would cross a network unencrypted."""
        return self.url.startswith("http:") and urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1")


def endpoint(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint of KICK_JUDGE_BASE_URL, else OPENAI_BASE_URL, else OpenAI's own.

    Args:
        environment: As `os.environ`.

    Raises:
        BadRequest: The address is none, or holds a user, a password or a query.
    """
    name = "KICK_JUDGE_BASE_URL" if _is_own(environment) else "OPENAI_BASE_URL"
    url = environment.get(name, "").strip() or DEFAULT_URL
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    # the value is not repeated: a user and a password may stand in it
    if not valid or parts.username is not None or parts.query or parts.fragment:
        raise BadRequest(
            f"{name} is no plain address: write e.g. http://127.0.0.1:8000/v1, without user, password or query"
        )
    return Endpoint(url, parts.netloc)


def _is_own(environment: Mapping[str, str]) -> bool:
    """Whether the judge has an address of its own, so that what is meant for OpenAI must not go there."""
    return bool(environment.get("KICK_JUDGE_BASE_URL", "").strip())


def _custom_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers that the client adds by itself; gateways take their credentials from such."""
    lines = environment.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def judge_name(name: str | None, environment: Mapping[str, str]) -> str:
    """The judge's model name.

    Args:
        name: Of --judge; KICK_JUDGE_MODEL where it is missing.
        environment: As `os.environ`.

    Raises:
        BadRequest: Neither is there.
    """
    name = name or environment.get("KICK_JUDGE_MODEL", "").strip()
    if not name:
        raise BadRequest("no judge is named: write --judge MODEL or set KICK_JUDGE_MODEL, as the endpoint calls it")
    return name


def _key(environment: Mapping[str, str]) -> str:
    """The key that belongs to the address. OpenAI's key never goes to the address that is named beside it."""
    names = ("KICK_JUDGE_API_KEY",) if _is_own(environment) else ("KICK_JUDGE_API_KEY", "OPENAI_API_KEY")
    for name in names:
        if key := environment.get(name, "").strip():
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise BadRequest(f"the key in {name} holds characters that no key has: set it again")
            return key
    raise BadRequest(
        f"no key: set {' or '.join(names)} in the environment (for a server that wants none, any word will do)"
    )


class Scrubber:
    """Takes secrets out of text: as they are, quoted for URLs, in base64 and in hexadecimal.

    Secrets shorter than 8 characters are the words that local servers accept instead of a key.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= 8 for form in _disguises(secret)}
        words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._secrets = re.compile(words or r"(?!)", re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return self._secrets.sub("[key]", text)


def _disguises(secret: str) -> Iterator[str]:
    data = secret.encode()
    yield from (secret, quote(secret, safe=""), data.hex())
    for before in range(3):  # base64 has three forms of a text that stands inside another one
        coded = base64.b64encode(bytes(before) + data).decode()
        inner = coded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


class Caller:
    """An open client for one judge (a `Provider`). Close it; several threads use it at once.

    Args:
        judge: The model and its settings.
        at: Its address.
        environment: Where the key is read.
        timeout: Seconds that one reply may take.
        retries: Further attempts of one call.

    Raises:
        KickError: The openai client is not installed.
        BadRequest: There is no key, or the timeout is out of range.
    """

    def __init__(
        self,
        judge: Judge,
        at: Endpoint,
        environment: Mapping[str, str],
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise KickError("judging needs the openai client: pip install 'llm-kick-explorer[judge]'") from error
        if not 0 < timeout <= 3600:
            raise BadRequest(f"timeout {timeout:g}: seconds from 1 to 3600")
        key, extra = _key(environment), _custom_headers(environment)
        self._scrub = Scrubber([key, *extra.values()])
        withheld = {name: openai.Omit() for name in (*_OPENAIS_OWN, *extra)} if _is_own(environment) else {}
        self._judge, self._openai = judge, openai
        self._client: openai.OpenAI = openai.OpenAI(
            api_key=key,
            base_url=at.url,
            default_headers=withheld,
            max_retries=retries,
            timeout=httpx2.Timeout(timeout, connect=10.0),
            # the key goes to the address that was named, and nowhere else
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False, event_hooks={"response": [_bounded(timeout)]}
            ),
        )
        # OpenAI's newer models refuse the old name, which is the only one that many servers know
        limit = "max_completion_tokens" if at.host == urlsplit(DEFAULT_URL).netloc else "max_tokens"
        self._settings: dict[str, Any] = {limit: judge.max_tokens}
        if judge.temperature is not None:
            self._settings["temperature"] = float(judge.temperature)

    def close(self) -> None:
        self._client.close()

    def ask(self, question: Question) -> Reply | Failure:
        """Send one question, with its retries.

        Args:
            question: To be answered.

        Returns:
            The reply, or the failure after the last attempt.
        """
        messages: Any = [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ]
        try:
            completion = self._client.chat.completions.create(
                model=self._judge.model, messages=messages, **self._settings
            )
            return self._reply(question, completion)
        except self._openai.APIStatusError as error:
            why = self._clean(f"HTTP {error.status_code}: {_message(error)}")
            return Failure(question.key, why, error.status_code in _FATAL)
        except self._openai.APITimeoutError:
            return Failure(question.key, "no reply in time")
        except self._openai.APIConnectionError as error:
            return Failure(question.key, f"the connection failed ({type(error.__cause__).__name__})")
        except (self._openai.OpenAIError, ValueError, TypeError, LookupError, AttributeError) as error:
            return Failure(question.key, f"the reply is no chat completion ({type(error).__name__})")

    def _reply(self, question: Question, completion: Any) -> Reply:
        """What of a completion is kept. Anything may be missing or of another type: nothing was checked yet."""
        choice = completion.choices[0]
        text = choice.message.content
        if text is None and getattr(choice.message, "refusal", None):
            text = choice.message.refusal
        if not isinstance(text, str):
            raise TypeError("no text")
        used = completion.usage
        return Reply(
            question.key,
            self._scrub(text),
            self._clean(str(choice.finish_reason or "")),
            self._clean(str(completion.model or "")),
            _count(getattr(used, "prompt_tokens", 0)),
            _count(getattr(used, "completion_tokens", 0)),
        )

    def _clean(self, text: str) -> str:
        """A server's words for one line of a message: without the key, control characters and length."""
        return "".join(char if char.isprintable() else " " for char in self._scrub(text))[:200]


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("error") or body
    return str(body or error.message)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _bounded(timeout: float) -> Any:
    """A hook that ends a reply which is too large, or goes on byte by byte for too long."""
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            start, size = time.monotonic(), 0
            for chunk in self._stream:
                size += len(chunk)
                if time.monotonic() - start > timeout:
                    raise httpx2.ReadTimeout("the reply does not end")
                if size > REPLY_BYTES:
                    raise httpx2.ReadError("the reply is too large")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Bounded(response.stream)

    return bound
