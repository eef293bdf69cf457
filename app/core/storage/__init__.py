"""Where videos lie: one contract, and what stands behind it."""

from app.core.secrets import Secrets
from app.core.settings import Settings
from app.core.storage.contract import Storage
from app.core.storage.local import LocalStorage


def open_storage(settings: Settings, secrets: Secrets) -> Storage:
    """The storage that the settings ask for. Raises StorageError when it cannot be opened."""
    return LocalStorage(root=settings.storage_dir, url_key=secrets.url_key)
