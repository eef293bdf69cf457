"""The tree of our exceptions.

    RegenError
    ├── RequestError                what a client did; carries the HTTP status
    │   ├── InvalidRequest          400, one message per fault
    │   ├── Unauthorized            401
    │   ├── Forbidden               403
    │   ├── NotFound                404
    │   ├── Conflict                409
    │   ├── LimitExceeded           413
    │   ├── NotAVideo               415
    │   ├── TooManyRequests         429, with Retry-After
    │   └── Unavailable             503, with Retry-After
    │       └── DatabaseUnavailable because the database is away
    ├── WorkError                   what befell a render at work
    │   ├── Canceled                the caller's `cancelled` said that the work is to stop
    │   ├── PermanentError          trying again cannot help; the message is for the user
    │   └── TransientError          worth another attempt
    │       ├── PipelineStalled     frames stopped coming
    │       └── LeaseLost           the work now belongs to somebody else
    ├── FfmpegError                 ffmpeg or ffprobe ended badly; its last words are in `detail`
    │   ├── FfmpegMissing           there is no such program
    │   ├── FfmpegTimeout           it ran past its wall-clock limit
    │   ├── FfmpegKilled            a signal ended it (its memory limit, most often)
    │   ├── FfmpegDiskFull          there was no room for what it wrote
    │   └── FfmpegCancelled         the caller wanted it no longer
    ├── StorageError                the storage did not do as asked
    │   ├── KeyNotFound             there is nothing under that key
    │   └── AccessRefused           it denies us what is under that key, or everything
    ├── OutboundError               an address that a user named did not answer as it should
    │   ├── AddressRefused          it is none that the server may connect to
    │   └── OutboundTimeout         it took too long
    └── ConfigurationError          the operator's settings or machine do not add up

`str(error)` is a sentence that may be shown to a user; what only the log may see is in `detail`.
"""

from collections.abc import Callable, Iterable, Iterator


def causes(
    error: BaseException, *, also: Callable[[BaseException], Iterable[object]] = lambda _error: ()
) -> Iterator[BaseException]:
    """The error, then all that it came from, each once: chains of exceptions may contain circles.

    `also` names further exceptions that an error carries; what it gives that is none is left out.
    """
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [*also(one), one.__context__, one.__cause__]


class RegenError(Exception):
    """Base of all. `detail` (for the log only) tells what the message leaves out."""

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class RequestError(RegenError):
    """A fault of the request. `status_code` is the HTTP status; `messages` is one sentence per fault."""

    status_code = 400

    def __init__(self, *messages: str, detail: str | None = None) -> None:
        super().__init__(" ".join(messages), detail=detail)
        self.messages = messages


class InvalidRequest(RequestError):
    status_code = 400


class Unauthorized(RequestError):
    status_code = 401

    def __init__(self, message: str = "A valid API key is required.") -> None:
        super().__init__(message)


class Forbidden(RequestError):
    status_code = 403


class NotFound(RequestError):
    status_code = 404


class Conflict(RequestError):
    status_code = 409


class LimitExceeded(RequestError):
    status_code = 413


class NotAVideo(RequestError):
    status_code = 415


class RetryLater(RequestError):
    """Base of the answers that name a pause. `retry_after_seconds` goes out as the Retry-After header."""

    def __init__(self, *messages: str, retry_after_seconds: int, detail: str | None = None) -> None:
        super().__init__(*messages, detail=detail)
        self.retry_after_seconds = retry_after_seconds


class TooManyRequests(RetryLater):
    status_code = 429


class Unavailable(RetryLater):
    status_code = 503

    def __init__(
        self,
        message: str = "The server cannot take work just now. Try again soon.",
        *,
        retry_after_seconds: int = 5,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, detail=detail)


class DatabaseUnavailable(Unavailable):
    """The database is away, or gave a transaction up: asking again may help."""


class WorkError(RegenError):
    """A render's work went wrong."""


class Canceled(WorkError):
    """The caller's `cancelled` returned true: the lease is lost, or the worker is ending."""

    def __init__(self, message: str = "The work was called off.") -> None:
        super().__init__(message)


class PermanentError(WorkError):
    """Another attempt would end the same way. The message is what the render's `error` will say."""


class TransientError(WorkError):
    """Another attempt may succeed: a full disk, a storage outage, memory, a stalled device."""


class PipelineStalled(TransientError):
    """No frame came for longer than the watchdog allows."""


class LeaseLost(TransientError):
    """The lease ran out and the work was given to somebody else, or its render has ended: stop, report nothing."""


class FfmpegError(RegenError):
    """ffmpeg or ffprobe failed. `detail` holds the end of its stderr."""


class FfmpegMissing(FfmpegError):
    """The program cannot be found or started."""


class FfmpegTimeout(FfmpegError):
    """The program ran past its wall-clock limit and was killed."""


class FfmpegKilled(FfmpegError):
    """A signal ended the program: its memory limit, or the system's."""


class FfmpegDiskFull(FfmpegError):
    """The disk, or a quota on it, had no room for what the program wrote."""


class FfmpegCancelled(FfmpegError):
    """The caller's `cancelled` said so, and the program was killed."""


class StorageError(RegenError):
    """The storage could not do what was asked; worth another attempt."""


class KeyNotFound(StorageError):
    """There is no object under that key."""


class AccessRefused(StorageError):
    """The storage denied access: to this object alone, or to everything. Its `check` tells which."""


class OutboundError(RegenError):
    """A request to an address that a user named failed. The message is for that user."""


class AddressRefused(OutboundError):
    """The address is none that this server may connect to, as far as its user may know."""


class OutboundTimeout(OutboundError):
    """The other server took too long."""


class ConfigurationError(RegenError):
    """Settings or machine do not add up; the sentence says what to change."""
