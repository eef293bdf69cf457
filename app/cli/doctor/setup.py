"""Checks of the settings themselves, and of the server's secret."""

import os
import stat
from collections.abc import Iterator

from app.cli.database import missing_database
from app.cli.doctor.findings import Finding
from app.platform.database_engine import parse_url
from app.platform.errors import ConfigurationError
from app.platform.network_limits import network_limits
from app.platform.setting_faults import unknown_settings
from app.platform.setting_types import weakness
from app.platform.settings import Settings


def check_names() -> Iterator[Finding]:
    """Each `REGEN_` variable or secret file that no setting reads."""
    for name, near in unknown_settings():
        fix = f"rename it to {near}" if near else "remove it; docs/settings.md lists every setting"
        yield Finding.absent(
            f"setting {name}", "there is no setting of that name, so it has no effect", fix=fix
        )


def check_limits(settings: Settings) -> Finding:
    """The limits of each user, if other machines can reach the server and if they cannot."""
    by_default = network_limits(settings)
    shown = []
    for name, what in (
        ("rate_limit", "{} requests"),
        ("max_queued_renders_per_user", "{} queued renders"),
        ("max_storage_bytes_per_user", "{} bytes of storage"),
        ("max_cost_per_month_per_user", "{} gigapixels a month"),
    ):
        limit = getattr(settings, name)
        told = what.format("any number of" if limit is None else limit)
        if name in by_default:
            told += f" (on a network {by_default[name]}, unless REGEN_{name.upper()} says otherwise)"
        shown.append(told)
    return Finding.ok("limits of each user", "; ".join(shown))


def check_api_processes(settings: Settings) -> Finding:
    """Not more than processors; and the connections to PostgreSQL that all of them may keep."""
    subject, count, processors = "API processes", settings.api_processes, os.cpu_count() or 1
    found = f"{count} (this machine has {processors} processors)"
    if settings.database_url is not None:
        most = count * (settings.database_pool_size + settings.database_pool_overflow)
        found += f", with up to {most} connections to the database"
    if count > processors:
        fix = "set REGEN_API_PROCESSES to the number of processors at most: more gain nothing"
        return Finding.absent(subject, found, fix=fix)
    return Finding.ok(subject, found)


def check_secret(settings: Settings) -> Finding:
    """The secret exists if required, cannot be guessed, and is private. A missing file is not made."""
    subject, path = "secret", settings.root / "secret"
    if settings.secret_key is not None:
        return Finding.ok(subject, "REGEN_SECRET_KEY is set")
    try:
        if parse_url(settings.resolved_database_url).get_backend_name() != "sqlite":
            fix = "set REGEN_SECRET_KEY to the same 32 random characters or more on every machine of the API"
            return Finding.absent(subject, "the API does not start without one on this database", fix=fix)
        has_database = missing_database(settings) is None
        secret = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        if has_database:
            fix = f"restore {path} from a backup, or make new keys with regen keys create"
            return Finding.absent(subject, f"not at {path}, so every key in the database is refused", fix=fix)
        return Finding.ok(subject, f"{path}: made by the first `regen serve`")
    except (ConfigurationError, OSError) as error:
        return Finding.missing(subject, str(error), fix=f"let this user read {path}")
    if (why := weakness(secret.decode("latin-1").strip())) is not None:
        fix = f"restore {path} from a backup, or remove it and make new keys"
        return Finding.missing(subject, f"{path}: it {why}", fix=fix)
    if mode & 0o077:
        return Finding.absent(subject, f"{path}: other users may read it", fix=f"chmod 600 {path}")
    return Finding.ok(subject, str(path))
