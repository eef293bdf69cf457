"""Every table. Importing this module completes `Table.metadata`, whatever else the process imports."""

from app.accounts.tables import ApiKey, IdempotencyKey, User
from app.destinations.tables import Destination
from app.engines.tables import AddedEngine
from app.files.tables import File
from app.platform.tables import Table
from app.previews.tables import Preview
from app.renders.tables import Render, Segment
from app.uploads.tables import Upload
from app.usage.tables import DailyUsage
from app.webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from app.work.tables import FailedAttempt, MeasuredOptionSpeed, MeasuredSpeed, PeriodicTask, WorkerProcess

__all__ = [
    "AddedEngine",
    "ApiKey",
    "DailyUsage",
    "Destination",
    "FailedAttempt",
    "File",
    "IdempotencyKey",
    "MeasuredOptionSpeed",
    "MeasuredSpeed",
    "PeriodicTask",
    "Preview",
    "Render",
    "Segment",
    "Table",
    "Upload",
    "User",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WorkerProcess",
]
