"""Where videos lie: one contract, and what stands behind it."""

from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.local import LocalStorage


def open_storage(settings: Settings, secrets: Secrets | None) -> Storage:
    """The storage that the settings ask for, once it has proved to work. Only local storage needs the secrets.

    Raises ConfigurationError when the settings do not add up, and StorageError with a sentence that helps when it
    cannot be used.
    """
    if settings.storage == "local":
        assert secrets is not None
        return LocalStorage(root=settings.storage_dir, url_key=secrets.url_key)
    # Loading boto3 takes a while.
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    storage = S3Storage(connect(settings))
    storage.check()
    return storage
