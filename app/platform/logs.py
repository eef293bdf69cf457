"""Logging to stderr, as text or JSON, for the server's own lines and those of libraries.

As JSON, every line is one object: `timestamp`, `level`, `event`, `logger`, then further fields. The server's events are
constants in snake_case. Lines of libraries and Python's warnings have the event `library_line` and their text in
`message`. A traceback is text in the field `exception`.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog

from app.platform.redaction import redactor
from app.platform.settings import Settings

# Libraries whose routine lines are useless, and whose debug lines contain more than a log should.
QUIET_LIBRARIES = (
    *("alembic", "asyncio", "celery", "kombu", "amqp", "redis", "httpx", "httpcore", "uvicorn.error"),
    *("boto3", "botocore", "s3transfer", "urllib3", "python_multipart", "psycopg"),
)
LIBRARY_LINE = "library_line"
# Limits for a field of a line, in characters: the end of a program's output says most.
LONGEST_START, LONGEST_END = 1024, 3072
TRACEBACKS = ("exception", "stack")

log = structlog.get_logger(__name__)


def configure_logging(settings: Settings) -> None:
    """Set up logging for this process. Call it once, before anything else."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json"
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
    handler = _JsonHandler(sys.stderr) if as_json else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _RedactingFormatter(
            redact=redactor(settings),
            foreign_pre_chain=shared,
            processors=_json_renderers() if as_json else _console_renderers(),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    if as_json:
        _log_what_python_prints()


def drop_query(record: logging.LogRecord) -> bool:
    """A filter for uvicorn's access lines, whose arguments are client, method, path, version and status.

    It removes the query, which contains the signature of a signed URL: a reader of the log must not be able to use it.
    """
    if isinstance(record.args, tuple) and len(record.args) > 2:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """The last step for every line: removes secrets."""

    def __init__(self, *, redact: Callable[[str], str], **options: Any) -> None:
        super().__init__(**options)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _JsonHandler(logging.StreamHandler[Any]):
    """Logs a line about a line that cannot be formatted, where Python would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name for it)
        line = {
            "timestamp": datetime.now(UTC).isoformat(),
            "level": "error",
            "event": "log_line_failed",
            "logger": record.name,
            "place": f"{record.pathname}:{record.lineno}",
            "error": type(sys.exception()).__name__,
        }
        # If stderr itself is closed, the line is lost.
        with suppress(OSError, ValueError):
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


def _console_renderers() -> list[Any]:
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _shortened,
        _on_one_line,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The rich default shows the values of variables, and keys among them.
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _shortened(_logger: object, _method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Removes the middle of long texts, which may come from programs that a file made verbose; not of tracebacks."""
    for name, value in fields.items():
        left_out = len(value) - LONGEST_START - LONGEST_END if isinstance(value, str) else 0
        if left_out > 0 and name not in TRACEBACKS:
            fields[name] = (
                f"{value[:LONGEST_START]} [{left_out:,} characters left out] {value[-LONGEST_END:]}"
            )
    return fields


class _Quoted:
    """A text that the console shows as a Python literal."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _on_one_line(_logger: object, _method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Escapes texts with control characters, which could forge log lines or control the terminal; not tracebacks."""
    event = str(fields["event"]).strip()
    fields["event"] = event if event.isprintable() else repr(event)[1:-1]
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable() and name not in TRACEBACKS:
            fields[name] = _Quoted(value)
    return fields


def _json_renderers() -> list[Any]:
    return [
        structlog.processors.format_exc_info,
        _shortened,
        _in_order,
        structlog.processors.JSONRenderer(),
    ]


def _in_order(_logger: object, _method: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Puts the common fields first, and moves a library's text from `event`, which holds constants, to `message`."""
    del fields["_record"]
    ours = fields.pop("_from_structlog")
    text = fields.pop("event")
    first = {"timestamp": fields.pop("timestamp"), "level": fields.pop("level")}
    if ours:
        return {**first, "event": text, "logger": fields.pop("logger"), **fields}
    return {
        **first,
        "event": LIBRARY_LINE,
        "logger": fields.pop("logger"),
        "message": str(text).strip(),
        **fields,
    }


def _log_what_python_prints() -> None:
    """Logs Python's warnings and uncaught exceptions."""
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException | None, _trace: TracebackType | None) -> None:
    log.critical("uncaught_exception", thread=threading.current_thread().name, exc_info=error or kind())


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if issubclass(arguments.exc_type, SystemExit):  # how a thread may end itself
        return
    _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    found = arguments.object
    log.error(
        "unraisable_exception",
        reason=arguments.err_msg,
        # From Python 3.14 on the reason may name it instead.
        where=None if found is None else getattr(found, "__qualname__", type(found).__qualname__),
        exc_info=arguments.exc_value or arguments.exc_type(),
    )
