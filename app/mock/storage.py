"""Local storage on the mock's clock, which can sign already expired URLs."""

from collections.abc import Callable
from pathlib import Path

from app.mock.faults import urls_expire
from app.platform.storage.local import LocalStorage

EXPIRED_SECONDS = -1


class MockStorage(LocalStorage):
    """See Storage. `clock` gives seconds since the epoch."""

    def __init__(self, *, root: Path, url_key: bytes, clock: Callable[[], float]) -> None:
        super().__init__(root=root, url_key=url_key, clock=clock)

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        return super().signed_url(
            key,
            base_url=base_url,
            file_name=file_name,
            lifetime_seconds=EXPIRED_SECONDS if urls_expire.get() else lifetime_seconds,
        )
