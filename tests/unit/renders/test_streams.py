"""The open event streams of several API processes."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from app.platform.errors import TooManyRequests
from app.platform.settings import Settings
from app.renders.streams import RenderStreams


def test_processes_of_one_server_count_a_users_streams_together(tmp_path) -> None:
    settings = Settings(data_dir=tmp_path, api_processes=2, max_event_streams_per_user=2)
    resources: Any = SimpleNamespace(settings=settings)
    watch: Any = None

    async def subscribe_to_both() -> None:
        one, other = RenderStreams(resources, watch), RenderStreams(resources, watch)
        first = one.subscribe(user_id="ann", render_id="r", key_id="k")
        second = other.subscribe(user_id="ann", render_id="r", key_id="k")
        for streams in (one, other):
            with pytest.raises(TooManyRequests, match="At most 2 streams"):
                streams.subscribe(user_id="ann", render_id="r", key_id="k")
        bobs = one.subscribe(user_id="bob", render_id="r", key_id="k")
        other.unsubscribe(second, user_id="ann")
        third = one.subscribe(user_id="ann", render_id="r", key_id="k")
        for subscription, user_id in ((first, "ann"), (third, "ann"), (bobs, "bob")):
            one.unsubscribe(subscription, user_id=user_id)

    asyncio.run(subscribe_to_both())
