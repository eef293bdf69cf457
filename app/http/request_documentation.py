"""What OpenAPI says of the bodies that routes read themselves, as they stream in."""

from typing import Any

from app.http.multipart import FILE_FIELD
from app.platform.media.rates import Retime
from app.platform.outbound import MOST_URL_CHARACTERS
from app.renders.options import LEAST_PRIORITY, MOST_PRIORITY
from models.catalog import DEFAULT_ENGINE, ENGINES

_FILE = {"type": "string", "format": "binary", "description": "The video."}
_OPTIONS: dict[str, Any] = {
    "target_fps": {
        "type": "number",
        "minimum": 1,
        "maximum": 120,
        "description": "The output's frame rate; 29.97 and its like mean n*1000/1001. Left out: the input's.",
    },
    "engine": {"type": "string", "enum": list(ENGINES), "default": DEFAULT_ENGINE},
    "retime": {
        "type": "string",
        "enum": list(Retime),
        "default": Retime.NEAREST,
        "description": "With `target_fps`: what is shown between two frames of the input. `nearest`: one of them; "
        "`blend`: both, mixed; `motion`: both, moved along their motion.",
    },
    "quality": {
        "type": "boolean",
        "default": False,
        "description": "Whether to measure how near the output is to the input, and how steady.",
    },
    "priority": {
        "type": "integer",
        "minimum": LEAST_PRIORITY,
        "maximum": MOST_PRIORITY,
        "default": 0,
        "description": "Of your own renders those with a higher one come first.",
    },
    "webhook_url": {
        "type": "string",
        "format": "uri",
        "maxLength": MOST_URL_CHARACTERS,
        "description": "An http or https address that is told when this render is queued, processing, completed and "
        "failed, beside your webhooks.",
    },
}
_FILE_ID = {"type": "string", "description": "The id of a file that was uploaded before."}
_FILE_URL = {
    "type": "string",
    "format": "uri",
    "maxLength": MOST_URL_CHARACTERS,
    "description": "An http or https URL of a video that the server is to fetch, where its operator allows it.",
}
_WITHOUT_FILE = {
    "schema": {
        "type": "object",
        "properties": {"file_id": _FILE_ID, "file_url": _FILE_URL, **_OPTIONS},
        "oneOf": [{"required": ["file_id"]}, {"required": ["file_url"]}],
    },
    "example": {"file_id": "QkjXasuzs2TKugHH", "engine": DEFAULT_ENGINE, "target_fps": 59.94},
}

UPSCALE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FILE_FIELD: _FILE, "file_id": _FILE_ID, "file_url": _FILE_URL, **_OPTIONS},
                    "oneOf": [
                        {"required": [FILE_FIELD]},
                        {"required": ["file_id"]},
                        {"required": ["file_url"]},
                    ],
                },
                "example": {
                    FILE_FIELD: "the bytes of clip.mp4",
                    "engine": DEFAULT_ENGINE,
                    "target_fps": 59.94,
                },
            },
            "application/json": _WITHOUT_FILE,
            "application/x-www-form-urlencoded": _WITHOUT_FILE,
        },
    }
}

FILE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {FILE_FIELD: _FILE}, "required": [FILE_FIELD]},
                "example": {FILE_FIELD: "the bytes of clip.mp4"},
            }
        },
    }
}
