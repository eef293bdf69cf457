"""The server's exceptions.

    RegenError
    ├── RequestError                a fault of the request; has the HTTP status
    │   ├── InvalidRequest          400, one message per fault
    │   ├── Unauthorized            401
    │   ├── Forbidden               403
    │   ├── NotFound                404
    │   ├── Conflict                409
    │   ├── LimitExceeded           413
    │   ├── NotAVideo               415
    │   ├── TooManyRequests         429, with Retry-After
    │   └── Unavailable             503, with Retry-After
    │       └── DatabaseUnavailable the database cannot be reached
    ├── WorkError                   the work on a render failed
    │   ├── Canceled                the caller's `cancelled` returned true
    │   ├── PermanentError          another attempt cannot help; the message is for the user
    │   └── TransientError          another attempt may succeed
    │       ├── PipelineStalled     no frame came in time
    │       ├── DiskTooSmall        the work alone fills the worker's disk
    │       └── LeaseLost           another worker holds the work
    ├── FfmpegError                 ffmpeg or ffprobe failed; the end of its stderr is in `detail`
    │   ├── FfmpegMissing           the program is not installed or does not start
    │   ├── FfmpegTimeout           it exceeded its wall-clock limit
    │   ├── FfmpegKilled            a signal ended it (most often its memory limit)
    │   │   └── FfmpegInterrupted   something else on the machine killed it
    │   ├── FfmpegDiskFull          the disk had no room for its output
    │   └── FfmpegCancelled         the caller's `cancelled` returned true
    ├── StorageError                a storage operation failed
    │   ├── KeyNotFound             there is no object with that key
    │   └── AccessRefused           the storage denies access to the object, or to everything
    ├── OutboundError               a request to a user-supplied URL failed
    │   ├── AddressRefused          the server may not connect to that address
    │   └── OutboundTimeout         it took too long
    └── ConfigurationError          the settings or the machine are wrong

`str(error)` is a sentence that may be shown to a user; `detail` is for the log only.
"""

from collections.abc import Callable, Iterable, Iterator


def causes(
    error: BaseException, *, also: Callable[[BaseException], Iterable[object]] = lambda _error: ()
) -> Iterator[BaseException]:
    """The error, then all its causes and contexts, each once: chains of exceptions may contain cycles.

    `also` returns further exceptions of an error; anything else in its result is ignored.
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
    """Base of all. `detail` (for the log only) has what the message leaves out."""

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
    """Base of the answers with a pause. `retry_after_seconds` is the Retry-After header."""

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
    """The database cannot be reached, or aborted a transaction: another attempt may succeed."""


class WorkError(RegenError):
    """The work on a render failed."""


class Canceled(WorkError):
    """The caller's `cancelled` returned true: the lease is lost, or the worker is ending."""

    def __init__(self) -> None:
        super().__init__("The work was canceled.")


class PermanentError(WorkError):
    """Another attempt would fail in the same way. The message becomes the render's `error`."""


class TransientError(WorkError):
    """Another attempt may succeed: a full disk, a storage outage, memory, a stalled device."""


class PipelineStalled(TransientError):
    """No frame came for longer than the watchdog allows."""


class DiskTooSmall(TransientError):
    """The disk is full, and most of what it holds belongs to this work."""


class LeftToOthers(TransientError):
    """Other workers are to do the work: give it back, uncharged."""


class LeaseLost(TransientError):
    """The lease expired and another worker holds the work, or its render has ended: stop without a report."""


class FfmpegError(RegenError):
    """ffmpeg or ffprobe failed. `detail` holds the end of its stderr."""


class CodecRefused(FfmpegError):
    """A video stream is in a codec that is not decoded here. The message is a sentence for the file's user."""

    def __init__(self, *, codec: str, stream_index: int, is_only_video: bool) -> None:
        if is_only_video:
            text = (
                f"The video in this file is in a codec that this server does not decode ({codec}). "
                "Convert it to another one first, such as H.264, ProRes or FFV1."
            )
        else:
            text = (
                f"Stream {stream_index} of this file is video in a codec that this server does not open ({codec}). "
                f"`ffmpeg -i input -map 0 -map -0:{stream_index} -c copy output.mkv` removes it."
            )
        super().__init__(text)


class FfmpegMissing(FfmpegError):
    """The program cannot be found or started."""


class FfmpegTimeout(FfmpegError):
    """The program exceeded its wall-clock limit and was killed."""


class FfmpegKilled(FfmpegError):
    """A signal ended the program: its memory limit, or the system's."""


class FfmpegInterrupted(FfmpegKilled):
    """SIGKILL ended the program, and no limit of its own: the system, short of memory, or a person."""


class FfmpegAnswerTooLong(FfmpegError):
    """The program wrote more than its caller takes, and was killed."""


class FfmpegDiskFull(FfmpegError):
    """The disk, or a quota on it, had no room for the program's output."""


class FfmpegCancelled(FfmpegError):
    """The caller's `cancelled` returned true, and the program was killed."""


class StorageError(RegenError):
    """A storage operation failed; another attempt may succeed."""


class KeyNotFound(StorageError):
    """There is no object with that key."""


class AccessRefused(StorageError):
    """The storage denied access, to this object or to everything; `Storage.check` shows which."""


class OutboundError(RegenError):
    """A request to a user-supplied URL failed. The message is for that user."""


class AddressRefused(OutboundError):
    """The server may not connect to the address, or the address does not exist; the message does not say which."""


class OutboundTimeout(OutboundError):
    """The other server took too long."""


class ConfigurationError(RegenError):
    """The settings or the machine are wrong; the message says what to change."""
