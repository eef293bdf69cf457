"""How log lines are written: ours and those of libraries alike, to stderr, as text or JSON."""

import logging
import sys
from typing import Any

import structlog

from app.core.settings import Settings

# Libraries whose everyday lines say nothing of use here.
QUIET_LIBRARIES = ("alembic", "celery", "kombu", "uvicorn.error", "httpx", "httpcore", "asyncio")


def configure_logging(settings: Settings) -> None:
    """Set up logging for this process. Call it once, first of all."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings.log_format),
            ],
        )
    )
    # Signed URLs carry their signature in the query: whoever reads the log must not be able to use it.
    logging.getLogger("uvicorn.access").addFilter(_drop_query)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _drop_query(record: logging.LogRecord) -> bool:
    """Shorten the path of an access line, whose arguments are client, method, path, version and status."""
    if isinstance(record.args, tuple) and len(record.args) > 2:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def _renderers(log_format: str) -> list[Any]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The rich default shows the values of variables, and keys among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]
