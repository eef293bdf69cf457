"""Storage of files: one contract, a local directory and an S3 bucket as its implementations."""

from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.local import LocalStorage


def open_storage(settings: Settings, secrets: Secrets | None) -> Storage:
    """The configured storage, after a check that it works. Only local storage needs the secrets.

    Raises ConfigurationError for inconsistent settings, and StorageError with a sentence for the operator when the
    storage cannot be used.
    """
    if settings.storage == "local":
        assert secrets is not None
        return LocalStorage(root=settings.storage_dir, url_key=secrets.url_key)
    # Importing boto3 is slow.
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    storage = S3Storage(connect(settings))
    storage.check()
    return storage
