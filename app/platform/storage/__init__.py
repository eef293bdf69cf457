"""Storage of files: one contract, a local directory and an S3 bucket as its implementations."""

from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.local import LocalStorage


def open_storage(settings: Settings, secrets: Secrets | None = None) -> Storage:
    """The configured storage, after a check that it works. Only local storage needs the secrets: without them the
    server's are loaded.

    Raises ConfigurationError for inconsistent settings, and StorageError with a sentence for the operator when the
    storage cannot be used.
    """
    if settings.storage == "local":
        secrets = secrets or Secrets.load(settings)
        return LocalStorage(root=settings.storage_dir, url_key=secrets.url_key)
    storage = _bucket(settings)
    storage.check()
    return storage


def open_storage_to_look(settings: Settings) -> Storage:
    """The configured storage for a command that only reads and lists: nothing is made or tried.

    Raises ConfigurationError.
    """
    if settings.storage == "local":
        return LocalStorage(root=settings.storage_dir, url_key=b"", read_only=True)
    return _bucket(settings)


def _bucket(settings: Settings) -> Storage:
    # Importing boto3 is slow.
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    return S3Storage(connect(settings))
