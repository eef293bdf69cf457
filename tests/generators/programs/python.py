"""URL, key and clip in, what the clients of all generators print out: see test_generators.py."""

import sys
from pathlib import Path

from openapi_client import (
    ApiClient,
    Configuration,
    FilesApi,
    RendersApi,
    UpscaleRequest,
    WebhookRequest,
    WebhooksApi,
)

url, key, clip = sys.argv[1:]
with ApiClient(Configuration(host=url, access_token=key)) as client:
    file = FilesApi(client).upload_file(("clip.mp4", Path(clip).read_bytes())).file
    renders = RendersApi(client)
    render = renders.upscale(UpscaleRequest(file_id=file.id, target_fps=23.976)).render
    while render.status not in ("completed", "failed"):
        render = renders.get_render(render.id).render
    webhook = WebhooksApi(client).create_webhook(WebhookRequest(url="http://127.0.0.1:9/hook")).webhook
    print(file.size_bytes, render.status.value, render.target_fps_exact, webhook.url)
