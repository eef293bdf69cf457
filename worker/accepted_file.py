"""Errors of probing a file again that was accepted when it was uploaded."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.platform.errors import FfmpegKilled, FfmpegTimeout, PermanentError, RequestError, TransientError


@contextmanager
def accepted_file() -> Iterator[None]:
    """Raises PermanentError for a RequestError of the block; TransientError if ffprobe was killed or too slow, which
    it was not when the file was accepted."""
    try:
        yield
    except RequestError as error:
        if isinstance(error.__cause__, FfmpegKilled | FfmpegTimeout):
            raise TransientError(error.message, detail=error.detail) from error
        raise PermanentError(error.message, detail=error.detail) from error
