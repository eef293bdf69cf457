"""The clean-up: removes files that are no longer needed, and records each step in their rows.

Results and uploads are removed in two steps. First the row withdraws the file, so that no further URL of it is signed;
after every signed URL has expired, the file is removed and the row records that. After a crash the next run continues.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.cleanup import queries as cleanup_queries
from app.cleanup.queries import Due
from app.files import queries as file_queries
from app.platform.database import Database
from app.platform.errors import StorageError
from app.platform.settings import Settings
from app.platform.storage.contract import Storage, delete_under
from app.platform.storage.keys import preview_prefix, render_prefix
from app.previews import queries as preview_queries
from app.previews.service import KEPT_SECONDS as PREVIEWS_KEPT_SECONDS
from app.uploads import queries as upload_queries
from app.uploads.service import free_storage
from app.webhooks import queries as webhook_queries

DAY_SECONDS = 24 * 3600.0
# A worker whose lease has expired may still write files until its next heartbeat.
SETTLING_SECONDS = 300.0
# The longest time between reading a row and signing its URLs.
SIGNING_SECONDS = 300.0

# The longest time that an expired upload may still need to become a file.
COMPLETING_SECONDS = 3600.0

# Clients repeat a failed request within days.
REQUESTS_REMEMBERED_SECONDS = 7 * 86_400.0
# Webhook deliveries, counted from their end.
DELIVERIES_KEPT_SECONDS = 30 * 86_400.0
DELIVERIES_A_RUN = 10_000
# Long enough to look through the list after a leak.
REVOKED_KEYS_KEPT_SECONDS = 30 * DAY_SECONDS

BATCH = 100
# Segment rows per transaction; a long video has tens of thousands.
SEGMENT_ROWS = 1000
# The next run continues with the rest.
MOST_A_RUN = 2000
# One file may fail; if several do, the storage is at fault.
MOST_FAILURES = 3

FindDue = Callable[..., Sequence[Due]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetentionRules:
    """How long files are kept, in seconds; None keeps them for ever.

    `settled`: the time after a render's end until no worker writes files for it. `url_lifetime`: the time after a
    withdrawal until every signed URL has expired.
    """

    keep_files: float | None
    keep_results: float | None
    settled: float
    url_lifetime: float

    @classmethod
    def from_settings(cls, settings: Settings) -> "RetentionRules":
        def seconds(days: float | None) -> float | None:
            return None if days is None else days * DAY_SECONDS

        return cls(
            keep_files=seconds(settings.keep_files_days),
            keep_results=seconds(settings.keep_outputs_days),
            settled=settings.lease_seconds + SETTLING_SECONDS,
            url_lifetime=settings.url_lifetime_seconds + SIGNING_SECONDS,
        )


@dataclass(kw_only=True)
class Removed:
    """The numbers of removed objects of one run, or of a preview of it."""

    renders_cleaned: int = 0
    results_withdrawn: int = 0
    results_erased: int = 0
    files_withdrawn: int = 0
    files_erased: int = 0
    previews_removed: int = 0
    uploads_cleared: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class CleanUp:
    """One clean-up run. Concurrent runs are safe. `stopped` is polled before each step."""

    database: Database
    storage: Storage
    rules: RetentionRules
    stopped: Callable[[], bool] = lambda: False

    def run(self) -> Removed:
        """Raises StorageError or Unavailable when the storage or the database fails; the next run continues."""
        rules, removed = self.rules, Removed()
        with self.database.write() as session:
            cleanup_queries.note_ends(session)
            cleanup_queries.forget_requests(session, made_for=REQUESTS_REMEMBERED_SECONDS)
            account_queries.forget_revoked(session, revoked_for=REVOKED_KEYS_KEPT_SECONDS)
            upload_queries.abort_expired(session, expired_for=COMPLETING_SECONDS)
            upload_queries.forget(session, ended_for=REQUESTS_REMEMBERED_SECONDS)
            webhook_queries.forget_deliveries(
                session, ended_for=DELIVERIES_KEPT_SECONDS, limit=DELIVERIES_A_RUN
            )
        if rules.keep_results is not None:
            removed.results_withdrawn = self._withdraw_results(rules.keep_results)
        if rules.keep_files is not None:
            removed.files_withdrawn = self._withdraw_files(rules.keep_files)
        removed.renders_cleaned = self._erase(
            lambda session, **options: cleanup_queries.due_to_clean(
                session, ended_for=rules.settled, **options
            ),
            self._clean_render,
            cleanup_queries.note_cleaned,
        )
        removed.results_erased = self._erase(
            lambda session, **options: cleanup_queries.due_results(
                session, given_up_for=rules.url_lifetime, **options
            ),
            self._delete_keys,
            cleanup_queries.note_results_erased,
        )
        removed.files_erased = self._erase(
            lambda session, **options: cleanup_queries.due_files(
                session, given_up_for=rules.url_lifetime, **options
            ),
            self._delete_keys,
            file_queries.note_file_erased,
        )
        removed.previews_removed = self._erase(
            _due_previews,
            self._delete_preview,
            lambda session, preview_id: preview_queries.delete(session, preview_id=preview_id),
        )
        removed.uploads_cleared = self._erase(_due_uploads, self._clear_upload, upload_queries.note_cleaned)
        return removed

    def preview(self) -> Removed:
        """The removals that `run` would do now without failures. Changes nothing."""
        rules, removed = self.rules, Removed()
        with self.database.read() as session:
            removed.renders_cleaned = cleanup_queries.count_renders_to_clean(session, ended_for=rules.settled)
            if rules.keep_results is not None:
                removed.results_withdrawn = cleanup_queries.count_results_to_give_up(
                    session, ended_for=rules.keep_results
                )
            if rules.keep_files is not None:
                removed.files_withdrawn = cleanup_queries.count_unused_files(
                    session, unused_for=rules.keep_files
                )
            removed.results_erased = cleanup_queries.count_results_to_erase(
                session, given_up_for=rules.url_lifetime
            )
            removed.files_erased = cleanup_queries.count_files_to_erase(
                session, given_up_for=rules.url_lifetime
            )
            removed.previews_removed = preview_queries.count_to_remove(
                session, made_for=PREVIEWS_KEPT_SECONDS
            )
            removed.uploads_cleared = upload_queries.count_to_clean(session, expired_for=COMPLETING_SECONDS)
        return removed

    def _withdraw_results(self, kept_for: float) -> int:
        count = 0
        while count < MOST_A_RUN and not self.stopped():
            with self.database.write() as session:
                changed = cleanup_queries.give_up_results(session, ended_for=kept_for, limit=BATCH)
            count += changed
            if changed < BATCH:
                break
        return count

    def _withdraw_files(self, kept_for: float) -> int:
        count, used = 0, set[str]()
        while count < MOST_A_RUN:
            with self.database.read() as session:
                found = cleanup_queries.unused_files(session, unused_for=kept_for, limit=BATCH, but=used)
            for file_id in found:
                if self.stopped():
                    return count
                with self.database.write() as session:
                    if cleanup_queries.give_up_file(session, file_id, unused_for=kept_for):
                        count += 1
                    else:
                        used.add(file_id)
            if len(found) < BATCH:
                break
        return count

    def _erase(
        self, find: FindDue, erase: Callable[[Due], None], note: Callable[[Session, str], None]
    ) -> int:
        count, failed = 0, set[str]()
        while count < MOST_A_RUN:
            with self.database.read() as session:
                found = find(session, limit=BATCH, but=failed)
            for due in found:
                if self.stopped():
                    return count
                try:
                    erase(due)
                except StorageError as error:
                    failed.add(due.id)
                    if len(failed) == MOST_FAILURES:
                        raise
                    log.warning("files_not_removed", id=due.id, error=error.message, detail=error.detail)
                    continue
                with self.database.write() as session:
                    note(session, due.id)
                count += 1
            if len(found) < BATCH:
                break
        return count

    def _clean_render(self, due: Due) -> None:
        """Remove all objects but the results, including those of late attempts, then the segment rows."""
        keep: Collection[str] = due.keys
        keys = [stored.key for stored in self.storage.list(render_prefix(due.id))]
        self.storage.delete_all([key for key in keys if key not in keep])
        count = SEGMENT_ROWS
        while count == SEGMENT_ROWS:
            with self.database.write() as session:
                count = cleanup_queries.shed_segments(session, render_id=due.id, limit=SEGMENT_ROWS)

    def _delete_preview(self, due: Due) -> None:
        delete_under(self.storage, preview_prefix(due.id))

    def _clear_upload(self, due: Due) -> None:
        file_id, multipart_id = due.keys
        free_storage(self.storage, file_id=file_id, multipart_id=multipart_id)

    def _delete_keys(self, due: Due) -> None:
        for key in due.keys:
            self.storage.delete(key)


def _due_previews(session: Session, *, limit: int, but: Collection[str]) -> Sequence[Due]:
    ids = preview_queries.due_to_remove(session, made_for=PREVIEWS_KEPT_SECONDS, limit=limit, but=but)
    return [Due(id=preview_id, keys=()) for preview_id in ids]


def _due_uploads(session: Session, *, limit: int, but: Collection[str]) -> Sequence[Due]:
    rows = upload_queries.due_to_clean(session, limit=limit, but=but)
    return [Due(id=row_id, keys=tuple(keys)) for row_id, *keys in rows]
