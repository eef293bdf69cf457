"""Measured speeds of workers, from which render times are estimated."""

import structlog

from app.platform.database import Database
from app.platform.errors import RegenError
from app.work import speed_queries

# Long enough that one unusual segment counts little, and short enough that a new driver or setting soon shows.
MEMORY_SECONDS = 600.0
LEAST_SECONDS = 0.001

log = structlog.get_logger(__name__)


def note_segment(database: Database, *, device: str, engine: str, pixels: int, seconds: float) -> None:
    """Note that a segment of `pixels` input pixels took `seconds`, transfers included.

    Uses its own transaction, and never raises: nothing depends on it, and no segment is repeated for it.
    """
    try:
        with database.write() as session:
            speed_queries.note(
                session,
                device=device,
                engine=engine,
                pixels=float(pixels),
                seconds=max(seconds, LEAST_SECONDS),
                longest_memory=MEMORY_SECONDS,
            )
    except RegenError as error:
        log.warning("speed_not_noted", error=error.message, detail=error.detail)
    except Exception:
        log.exception("speed_not_noted")
