"""Rows and objects of any age."""

import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

from app.files.tables import File
from app.platform.database import Database
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage
from app.platform.storage.keys import input_key, output_key, segment_key, sound_key, thumbnail_key
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from tests.integration.rows import a_render

DAY = 24 * 3600.0


class AgedRows:
    """Rows and objects of any age."""

    def __init__(self, database: Database, storage: Storage, user_id: str, directory: Path) -> None:
        self.database = database
        self.storage = storage
        self._user_id = user_id
        self._directory = directory

    def add_file(self, *, age: float, is_stored: bool = True, **columns: object) -> str:
        """An upload of so many seconds ago, its bytes in the storage. Returns its id."""
        file_id = new_id()
        with self.database.write() as session:
            session.add(
                File(
                    id=file_id,
                    user_id=self._user_id,
                    name="clip.mp4",
                    content_type="video/mp4",
                    size_bytes=1,
                    sha256="0" * 64,
                    storage_key=input_key(file_id),
                    width=64,
                    height=48,
                    frame_rate=Fraction(25),
                    duration_seconds=Fraction(2),
                    frames=50,
                    created_at=ago(age),
                    **columns,
                )
            )
        if is_stored:
            self.put(input_key(file_id))
        return file_id

    def add_render(
        self,
        file_id: str,
        status: str,
        *,
        ended: float | None = None,
        is_stored: bool = True,
        **columns: object,
    ) -> str:
        """A render that ended so many seconds ago, with the objects that one of that status has."""
        with self.database.write() as session:
            render = a_render(session, session.get_one(File, file_id))
            render.status = RenderStatus(status)
            render.ended_at = None if ended is None else ago(ended)
            if status == "completed":
                render.output_key = output_key(render.id, attempt=1)
                render.thumbnail_key = thumbnail_key(render.id, attempt=1)
            for name, value in columns.items():
                setattr(render, name, value)
        for key in (render.output_key, render.thumbnail_key):
            if is_stored and key is not None:
                self.put(key)
        return render.id

    def put(self, *keys: str) -> None:
        for key in keys:
            path = self._directory / os.urandom(8).hex()
            path.write_bytes(b"x")
            self.storage.put_file(key, path, content_type="video/mp4")

    def make_older(self, row_id: str, seconds: float) -> None:
        """Move what was noted of the row into the past."""
        for table, columns in ((File, ("removed_at",)), (Render, ("ended_at", "files_removed_at"))):
            with self.database.write() as session:
                row = session.get(table, row_id)
                for name in columns if row is not None else ():
                    moment = getattr(row, name)
                    if moment is not None:
                        setattr(row, name, moment - timedelta(seconds=seconds))

    def keys(self) -> set[str]:
        return {stored.key for stored in self.storage.list("")}

    def render(self, render_id: str) -> Render:
        with self.database.read() as session:
            return session.get_one(Render, render_id)

    def file(self, file_id: str) -> File:
        with self.database.read() as session:
            return session.get_one(File, file_id)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def leavings(render_id: str) -> list[str]:
    """What attempts that failed or came too late leave behind."""
    return [
        segment_key(render_id, position=0, attempt=1),
        segment_key(render_id, position=1, attempt=3),
        output_key(render_id, attempt=9),
        thumbnail_key(render_id, attempt=9),
        sound_key(render_id, attempt=9),
    ]
