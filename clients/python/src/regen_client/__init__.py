"""A client of the Regen video upscale API: Regen, and AsyncRegen for asyncio."""

from regen_client.answers import (
    Engine,
    Estimate,
    File,
    Limits,
    Preview,
    PreviewOptions,
    Progress,
    Quality,
    Render,
    RenderOptions,
    Usage,
    UsageTotals,
    UsedOnDay,
    Video,
)
from regen_client.client import AsyncRegen, Regen
from regen_client.errors import ApiError, InvalidWebhook, NoAnswer, RegenError, RenderFailed, WaitTimeout
from regen_client.webhooks import verify_webhook

__all__ = [
    "ApiError",
    "AsyncRegen",
    "Engine",
    "Estimate",
    "File",
    "InvalidWebhook",
    "Limits",
    "NoAnswer",
    "Preview",
    "PreviewOptions",
    "Progress",
    "Quality",
    "Regen",
    "RegenError",
    "Render",
    "RenderFailed",
    "RenderOptions",
    "Usage",
    "UsageTotals",
    "UsedOnDay",
    "Video",
    "WaitTimeout",
    "verify_webhook",
]
