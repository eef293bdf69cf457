"""Fetches one file over http(s), within bounds."""

import http.client
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from models.errors import WeightsCorrupt, WeightsError, WeightsMissing

_CHUNK_BYTES = 1 << 20


def is_url(source: object) -> bool:
    """Whether this is a string that names something over http or https."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def download(
    url: str,
    *,
    directory: Path,
    max_bytes: int,
    timeout_seconds: float = 30.0,
    deadline_seconds: float = 1800.0,
) -> Path:
    """Streams `url` into a new temporary file in `directory` and returns its path; the caller removes it.

    `timeout_seconds` bounds every wait for the server, `deadline_seconds` the whole. Raises `WeightsMissing`
    where the server has no such file, `WeightsCorrupt` for more than `max_bytes` or fewer than it announced,
    and `WeightsError` for a server that does not answer in time. No temporary file is left behind by a
    failure.
    """
    if not is_url(url):
        raise WeightsError(f"{url!r} is no http or https address.")
    # Not urlopen: its default opener would follow a redirect to ftp as well.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "regen-server"})  # noqa: S310 - checked above
    deadline = time.monotonic() + deadline_seconds
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".download-", delete=False) as file:
        try:
            response = opener.open(request, timeout=timeout_seconds)
            if response is None:
                raise WeightsError(f"{url} redirects to what is neither http nor https.")
            with response:
                received = 0
                # read1 returns what has come so far: a server that drips bytes cannot outlast the deadline.
                while chunk := response.read1(_CHUNK_BYTES):
                    received += len(chunk)
                    if received > max_bytes:
                        raise WeightsCorrupt(
                            f"{url} is larger than {max_bytes} bytes: that is no weights file."
                        )
                    if time.monotonic() > deadline:
                        raise WeightsError(f"{url} did not arrive within {deadline_seconds:.0f} seconds.")
                    file.write(chunk)
                announced = response.headers.get("Content-Length")
                if announced is not None and announced.isdigit() and received < int(announced):
                    raise WeightsCorrupt(f"{url} broke off after {received} of {announced} bytes. Try again.")
        except BaseException as error:
            Path(file.name).unlink(missing_ok=True)
            if isinstance(error, urllib.error.HTTPError):
                kind = WeightsMissing if error.code in (404, 410) else WeightsError
                raise kind(f"{url} answers {error.code} {error.reason}.") from error
            if isinstance(error, (OSError, http.client.HTTPException)):
                raise WeightsError(f"{url} could not be fetched: {error}") from error
            raise
    return Path(file.name)
