"""Deliveries as earlier versions wrote them: sent as those versions would have sent them."""

import pytest
from sqlalchemy import update

from app.platform.json_values import timestamp
from app.renders.tables import Render
from app.webhooks import outbox
from app.webhooks.statuses import WebhookEvent
from tests.integration.webhooks.test_outbox import complete

# As that version wrote them of a render from 25 to 29.97 frames a second.
COMPLETED = {
    "render": {
        "user_id": "ann",
        "file_id": "clip",
        "engine": "regen-4x-lite",
        "target_fps": "30000/1001",
        "retime": "blend",
        "measures_quality": False,
        "status": "completed",
        "completed_at": "2026-11-29T04:26:02.826233+00:00",
        "error": None,
        "warnings": ["a warning"],
        "quality": {"psnr": 40.5, "ssim": 0.98, "temporalStability": 41.0, "frames": 30},
        "cost": 1.5,
        "input_width": 64,
        "input_height": 48,
        "input_frame_rate": "25",
        "input_duration_seconds": "2",
        "input_frames": 50,
        "output_width": 256,
        "output_height": 192,
        "output_frame_rate": "30000/1001",
        "output_duration_seconds": "1001/500",
        "output_frames": 60,
        "output_bytes": 7,
        "webhook_url": "https://studio.example.com/hook",
        "priority": 3,
        "retry_of": None,
        "id": "rDpuEKv4wnLyl7bk",
        "created_at": "2026-11-29T04:26:02.255502+00:00",
    }
}
SENT = {
    "id": "rDpuEKv4wnLyl7bk",
    "userId": "ann",
    "status": "completed",
    "createdAt": "2026-11-29T04:26:02.255Z",
    "completedAt": "2026-11-29T04:26:02.826Z",
    "engine": "regen-4x-lite",
    "targetFps": 29.97002997002997,
    "retime": "blend",
    "fileId": "clip",
    "cost": 1.5,
    "progress": 1.0,
    "warnings": ["a warning"],
    "priority": 3,
    "webhookUrl": "https://studio.example.com/hook",
    "quality": {"psnr": 40.5, "ssim": 0.98, "temporalStability": 41.0, "frames": 30},
    "input": {"width": 64, "height": 48, "frameRate": 25, "durationSeconds": 2, "frames": 50},
    "output": {
        "width": 256,
        "height": 192,
        "frameRate": 29.97002997002997,
        "durationSeconds": 2.002,
        "frames": 60,
    },
}
# Of a render that asks for nothing in particular, while it waits.
QUEUED = {
    "render": COMPLETED["render"]
    | {
        "target_fps": None,
        "retime": "nearest",
        "status": "queued",
        "completed_at": None,
        "warnings": [],
        "quality": None,
        "priority": 0,
    },
    "queue_position": 2,
}
FAILED = {
    "render": QUEUED["render"] | {"status": "failed", "error": "Canceled"},
    "progress": 0.5,
}


@pytest.fixture
def send(hooks, make_dispatcher, receiver):
    """The render in the event that is sent of a delivery with those facts."""

    def run(render_id, event, facts):
        with hooks.database.write() as session:
            delivery_id = outbox.add_delivery(
                session,
                user_id=hooks.user_id,
                endpoint_id=None,
                render_id=render_id,
                url=receiver.url,
                event=event,
                facts=facts,
            )
        make_dispatcher().start()
        hooks.wait_for(delivery_id, status="delivered")
        (received,) = (one for one in receiver.received if one.id == delivery_id)
        return received.verified(hooks.secret())["data"]["render"]

    return run


def test_an_earlier_delivery_is_sent_with_links(hooks, make_ledger, prepare, send):
    render_id = hooks.add_render()
    complete(make_ledger(), prepare)

    sent = send(render_id, WebhookEvent.COMPLETED, COMPLETED)

    links = {name: sent.pop(name) for name in ("inputFileURL", "outputFileURL", "thumbnailURL")}
    assert sent == SENT
    storage = "http://regen.test/storage/"
    assert links["inputFileURL"].startswith(f"{storage}files/clip/input?")
    assert links["outputFileURL"].startswith(f"{storage}renders/{render_id}/output-2.mp4?")
    assert "name=clip-4x.mp4" in links["outputFileURL"] and "name=clip-4x.jpg" in links["thumbnailURL"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_earlier_delivery_of_a_deleted_render_is_sent_without_links(send):
    assert send("gone", WebhookEvent.COMPLETED, COMPLETED) == SENT


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_earlier_delivery_shows_the_event_and_not_what_came_after(hooks, make_ledger, prepare, send):
    render_id = hooks.add_render()
    complete(make_ledger(), prepare)
    with hooks.database.write() as session:
        removed_at = session.get_one(Render, render_id).completed_at
        session.execute(update(Render).values(files_removed_at=removed_at))

    queued = send(render_id, WebhookEvent.QUEUED, QUEUED)
    failed = send(render_id, WebhookEvent.FAILED, FAILED)

    assert queued.pop("inputFileURL")
    assert queued["filesRemovedAt"] == timestamp(removed_at)
    left_out = ("completedAt", "targetFps", "retime", "warnings", "priority", "quality")
    kept = {name: value for name, value in SENT.items() if name not in left_out}
    assert queued == kept | {
        "status": "queued",
        "queuePosition": 2,
        "progress": 0.0,
        "filesRemovedAt": timestamp(removed_at),
    }
    assert (failed["status"], failed["error"], failed["progress"]) == ("failed", "Canceled", 0.5)
    assert "outputFileURL" not in failed and "queuePosition" not in failed
