"""A client of the Regen video upscale API: Regen, and AsyncRegen for asyncio."""

from regen_client.answers import (
    Engine,
    Estimate,
    File,
    Preview,
    PreviewOptions,
    Progress,
    Render,
    RenderOptions,
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
    "NoAnswer",
    "Preview",
    "PreviewOptions",
    "Progress",
    "Regen",
    "RegenError",
    "Render",
    "RenderFailed",
    "RenderOptions",
    "Video",
    "WaitTimeout",
    "verify_webhook",
]
