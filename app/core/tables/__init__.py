"""The tables. Rows are the truth; whatever a broker or a worker remembers is not."""

from app.core.tables.accounts import ApiKey, DailyUsage, IdempotencyKey, User
from app.core.tables.base import ExactFraction, StatusText, Table
from app.core.tables.previews import Preview
from app.core.tables.renders import File, Render, Segment
from app.core.tables.uploads import Upload
from app.core.tables.webhooks import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from app.core.tables.workers import Chore, MeasuredSpeed, Worker

__all__ = [
    "ApiKey",
    "Chore",
    "DailyUsage",
    "ExactFraction",
    "File",
    "IdempotencyKey",
    "MeasuredSpeed",
    "Preview",
    "Render",
    "Segment",
    "StatusText",
    "Table",
    "Upload",
    "User",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
