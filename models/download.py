"""Fetches one file over http(s), within bounds."""

import tempfile
import time
from pathlib import Path

import httpx

from models.errors import WeightsCorrupt, WeightsError, WeightsMissing


def download(
    url: str,
    *,
    directory: Path,
    max_bytes: int,
    timeout_seconds: float = 30.0,
    deadline_seconds: float = 1800.0,
) -> Path:
    """Streams `url` into a new temporary file in `directory` and returns its path; the caller removes it.

    `timeout_seconds` bounds each wait for the server, `deadline_seconds` the whole. Redirects are followed to http and
    https alone. Raises `WeightsMissing` if the server has no such file, `WeightsCorrupt` for more than `max_bytes`, and
    `WeightsError` for a server that does not answer in time or breaks off. A failure leaves no temporary file.
    """
    deadline = time.monotonic() + deadline_seconds
    headers = {"User-Agent": "regen-server", "Accept-Encoding": "identity"}
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".download-", delete=False) as file:
        try:
            received = 0
            with httpx.stream(
                "GET", url, headers=headers, timeout=timeout_seconds, follow_redirects=True
            ) as response:
                if response.is_error:
                    kind = WeightsMissing if response.status_code in (404, 410) else WeightsError
                    raise kind(f"{url} answers {response.status_code} {response.reason_phrase}.")
                for chunk in response.iter_raw():
                    received += len(chunk)
                    if received > max_bytes:
                        raise WeightsCorrupt(
                            f"{url} is larger than {max_bytes} bytes: it is not a weights file."
                        )
                    if time.monotonic() > deadline:
                        raise WeightsError(f"{url} did not arrive within {deadline_seconds:.0f} seconds.")
                    file.write(chunk)
        except BaseException as error:
            Path(file.name).unlink(missing_ok=True)
            if isinstance(error, (httpx.HTTPError, httpx.InvalidURL, OSError)):
                raise WeightsError(f"{url} could not be fetched: {error}") from error
            raise
    return Path(file.name)
