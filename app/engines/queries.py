"""Rows of added engines."""

from collections.abc import Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.engines.tables import AddedEngine
from app.platform.database import database_now, insert_into
from app.platform.lease import changed_rows


def find_engine(session: Session, engine_id: str) -> AddedEngine | None:
    return session.get(AddedEngine, engine_id)


def list_engines(session: Session, *, silent_for: float) -> Sequence[AddedEngine]:
    """Those that a worker reported within so many seconds, by id."""
    heard = AddedEngine.seen_at >= database_now(plus_seconds=-silent_for)
    return session.scalars(select(AddedEngine).where(heard).order_by(AddedEngine.id)).all()


def report_engine(session: Session, engine: AddedEngine, *, silent_for: float) -> bool:
    """Records that a worker has the engine. False if others that reported within so many seconds have other weights."""
    values = {
        column.name: getattr(engine, column.name)
        for column in AddedEngine.__table__.columns
        if column.name not in ("id", "seen_at")
    }
    row = {"id": engine.id, "seen_at": database_now(), **values}
    session.execute(
        insert_into(session, AddedEngine).values(row).on_conflict_do_nothing(index_elements=["id"])
    )
    is_same = AddedEngine.data_sha256 == engine.data_sha256
    is_silent = AddedEngine.seen_at < database_now(plus_seconds=-silent_for)
    heard = update(AddedEngine).where(AddedEngine.id == engine.id, or_(is_same, is_silent))
    return changed_rows(session, heard.values(seen_at=database_now(), **values))
