"""URL, key and clip in, what the clients of all generators print out: see test_generators.py."""

import sys
from pathlib import Path

from generated import AuthenticatedClient
from generated.api.files import upload_file
from generated.api.renders import get_render, upscale
from generated.api.webhooks import create_webhook
from generated.models import UploadFileBody, UpscaleFilesBody, UpscaleJsonBody, WebhookRequest
from generated.types import File

url, key, clip = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True) as client:
    with Path(clip).open("rb") as video:
        body = UploadFileBody(file=File(payload=video, file_name="clip.mp4"))
        file = upload_file.sync(client=client, body=body).file
    for form in (UpscaleJsonBody, UpscaleFilesBody):
        render = upscale.sync(client=client, body=form(file_id=file.id, target_fps=23.976)).render
    while render.status not in ("completed", "failed"):
        render = get_render.sync(render.id, client=client).render
    webhook = create_webhook.sync(client=client, body=WebhookRequest(url="http://127.0.0.1:9/hook")).webhook
    print(file.size_bytes, render.status, render.target_fps_exact, webhook.url)
