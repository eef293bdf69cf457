"""What `regen doctor` looks at. Each check looks, proves by doing where that is possible, and changes nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from app.cli.reporting import WORKER_PACKAGES
from app.platform.errors import ConfigurationError, RegenError
from app.platform.settings import GIB, Settings
from models.catalog import ENGINES

LEAST_FREE_BYTES = 1 * GIB
COMFORTABLE_FREE_BYTES = 10 * GIB


class State(Enum):
    """`ABSENT` is missing too, but nothing that the server cannot do without."""

    OK = "ok"
    ABSENT = "absent"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `mend` says what to do about it."""

    subject: str
    state: State
    found: str
    mend: str = ""


def look_around(settings: Settings, scratch: Path) -> Iterator[Finding]:
    """Every finding, as it is made. `scratch` is an empty directory for files made on the way."""
    from app.cli.media_checks import check_media

    yield Finding(subject="Python", state=State.OK, found=platform.python_version())
    yield from check_media(settings, scratch)
    yield from check_devices()
    yield from check_weights(settings)
    yield check_database(settings)
    yield check_broker(settings)
    yield check_storage(settings)
    yield check_disk(settings)


def check_devices() -> Iterator[Finding]:
    """What torch can compute on."""
    missing = [name for name in WORKER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding(
            subject="torch",
            state=State.ABSENT,
            found=f"{' and '.join(missing)} not installed: this machine can serve the API, not upscale",
            mend="pip install 'regen-server[worker]'",
        )
        return
    import torch

    from worker.inference.cpu.kernels import find_kernels
    from worker.inference.devices import CpuDevice, find_devices

    yield Finding(subject="torch", state=State.OK, found=torch.__version__)
    yield Finding(subject="CPU", state=State.OK, found=CpuDevice().details)
    if (kernels := find_kernels()) is not None:
        yield Finding(subject="CPU kernels", state=State.OK, found=f"compiled, for {kernels.instructions}")
    else:
        yield Finding(
            subject="CPU kernels",
            state=State.ABSENT,
            found="not compiled, or not for this processor: on a CPU torch computes, two to three times slower",
            mend="install a C compiler (on Debian or Ubuntu: apt install gcc libc6-dev), then the package again",
        )
    accelerators = [device for device in find_devices() if device.is_accelerator]
    for device in accelerators:
        yield Finding(subject=str(device), state=State.OK, found=device.details)
    if not accelerators:
        yield Finding(
            subject="GPU",
            state=State.ABSENT,
            found="none that torch can use: the CPU does the work, slowly",
            mend="for an NVIDIA GPU install its driver, and a torch built for CUDA",
        )


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Each engine's weights: there, and the bytes they should be."""
    installed = all(importlib.util.find_spec(name) is not None for name in WORKER_PACKAGES)
    for engine in ENGINES.values():
        subject = f"weights of {engine.id}"
        path = settings.weights_dir / f"{engine.id}.safetensors"
        mend = f"python -m models.weights convert --engine {engine.id} --directory {settings.weights_dir}"
        if not installed:
            state = State.OK if path.exists() else State.ABSENT
            yield Finding(
                subject=subject, state=state, found="for the worker alone; not verified without torch"
            )
            continue
        from models.errors import WeightsError, WeightsMissing
        from models.weights import load_state_dict

        try:
            load_state_dict(path, engine)
        except WeightsMissing:
            yield Finding(
                subject=subject, state=State.ABSENT, found=f"not at {path}; converted on first use", mend=mend
            )
        except WeightsError as error:
            yield Finding(subject=subject, state=State.MISSING, found=str(error), mend=f"rm {path}; {mend}")
        else:
            yield Finding(subject=subject, state=State.OK, found=f"{path}, verified")


def check_database(settings: Settings) -> Finding:
    """Reachable, with every migration. A file of our own that is not there yet is not made."""
    from sqlalchemy.exc import SQLAlchemyError

    from app import migrations
    from app.platform.database import Database, parse_url

    subject = "database"
    try:
        url = parse_url(settings.resolved_database_url)
        shown = url.set(query={}).render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            return Finding(subject=subject, state=State.OK, found=f"{shown}: made by the first `regen serve`")
        database = Database.from_settings(settings)
        try:
            is_usable = migrations.position(database).is_usable
        finally:
            database.close()
    except (RegenError, SQLAlchemyError, ImportError, OSError) as error:
        return Finding(
            subject=subject, state=State.MISSING, found=_first_line(error), mend="check REGEN_DATABASE_URL"
        )
    if not is_usable:
        return Finding(
            subject=subject,
            state=State.MISSING,
            found=f"{shown}: migrations are missing",
            mend="regen db upgrade",
        )
    return Finding(subject=subject, state=State.OK, found=f"{shown}: reachable, every migration applied")


def check_broker(settings: Settings) -> Finding:
    """The broker of REGEN_BROKER_URL answers; the embedded one does, or could be started."""
    subject = "broker"
    if settings.broker_url is None:
        from app.serving.broker import answers, find_program

        if answers(settings.broker_socket):
            return Finding(subject=subject, state=State.OK, found="embedded, answers PING")
        try:
            program = find_program()
        except ConfigurationError as error:
            return Finding(
                subject=subject, state=State.MISSING, found=str(error), mend="set REGEN_BROKER_URL"
            )
        return Finding(
            subject=subject, state=State.OK, found=f"embedded, starts with `regen serve` ({program})"
        )
    from app.platform import queue

    try:
        queue.check_broker(queue.make_celery(settings))
    except RegenError as error:
        return Finding(
            subject=subject,
            state=State.MISSING,
            found=_first_line(error),
            mend="start it, or mend REGEN_BROKER_URL",
        )
    return Finding(subject=subject, state=State.OK, found="REGEN_BROKER_URL answers")


def check_storage(settings: Settings) -> Finding:
    """The storage can be written; a data directory that is not there yet is not made."""
    subject = "storage"
    if settings.storage == "s3":
        return _check_bucket(settings, subject)
    mend = "let this user write there, or choose another with --data-dir or REGEN_DATA_DIR"
    root = settings.root
    if not root.exists():
        parent = _nearest_existing(root)
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding(subject=subject, state=State.OK, found=f"{root}: made by the first `regen serve`")
        return Finding(
            subject=subject, state=State.MISSING, found=f"{root} cannot be made in {parent}", mend=mend
        )
    from app.platform.secrets import Secrets
    from app.platform.storage import open_storage

    try:
        open_storage(settings, Secrets.load(settings)).check()
    except (RegenError, OSError) as error:
        return Finding(subject=subject, state=State.MISSING, found=_first_line(error), mend=mend)
    return Finding(subject=subject, state=State.OK, found=f"{settings.storage}, {root}: writable")


def _check_bucket(settings: Settings, subject: str) -> Finding:
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    try:
        connection = connect(settings)
        S3Storage(connection).check()
    except RegenError as error:
        mend = "mend the REGEN_S3_... settings, then: regen storage check"
        return Finding(subject=subject, state=State.MISSING, found=_first_line(error), mend=mend)
    found = f"bucket {connection.bucket} at {connection.address}: writable"
    return Finding(subject=subject, state=State.OK, found=found)


def check_disk(settings: Settings) -> Finding:
    """Room for outputs where the data directory is."""
    place = _nearest_existing(settings.root)
    free_bytes = shutil.disk_usage(place).free
    state = State.OK
    if free_bytes < COMFORTABLE_FREE_BYTES:
        state = State.MISSING if free_bytes < LEAST_FREE_BYTES else State.ABSENT
    return Finding(
        subject="free disk space",
        state=state,
        found=f"{free_bytes / GIB:.1f} GiB at {place}",
        mend="" if state is State.OK else "make room: outputs are many times larger than inputs",
    )


def _nearest_existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _first_line(error: BaseException) -> str:
    detail = getattr(error, "detail", None)
    return f"{error} ({str(detail).splitlines()[0]})" if detail else str(error).splitlines()[0]
