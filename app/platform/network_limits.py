"""Default limits of users, once other machines can reach the server."""

import shutil
from typing import Any
from urllib.parse import urlsplit

from app.platform.byte_sizes import GIB
from app.platform.public_addresses import is_loopback
from app.platform.settings import Settings

# Enough for a client that polls a hundred renders every five seconds.
REQUESTS = "100/second;1200/minute"
# Users take turns at the workers: a longer queue gains a user nothing, but claims read each row of it.
QUEUED_RENDERS = 100
# A bucket does not fill up, but its bytes cost money.
BUCKET_BYTES = 1024 * GIB


def is_on_network(settings: Settings, address: str) -> bool:
    """Whether clients on other machines reach a server that listens on `address`, perhaps through a proxy."""
    names = [address, urlsplit(settings.public_url or "").hostname or "", *settings.allowed_hosts]
    return any(name and not is_loopback(name) for name in names)


def network_limits(settings: Settings) -> dict[str, Any]:
    """The limits of each user on a network, by the names of the settings, for those settings that are unset.

    Local storage: half of the disk, so that one user alone never fills it.
    """
    limits = {
        "rate_limit": REQUESTS,
        "max_queued_renders_per_user": QUEUED_RENDERS,
        "max_storage_bytes_per_user": BUCKET_BYTES
        if settings.storage == "s3"
        else _disk_bytes(settings) // 2,
    }
    return {name: limit for name, limit in limits.items() if name not in settings.model_fields_set}


def _disk_bytes(settings: Settings) -> int:
    root = settings.root
    return shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).total
