"""Counts of waiting deliveries."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.webhooks import queries


@dataclass(frozen=True, kw_only=True)
class WebhookBacklog:
    """`waiting` counts deliveries that have not ended; `overdue_seconds` is how long one of them has been
    due, 0 when dispatchers keep up."""

    waiting: int
    overdue_seconds: float


def webhook_backlog(session: Session) -> WebhookBacklog:
    waiting, first_due, now = queries.backlog(session)
    overdue_seconds = 0.0 if first_due is None else max(0.0, (now - first_due).total_seconds())
    return WebhookBacklog(waiting=waiting, overdue_seconds=overdue_seconds)
