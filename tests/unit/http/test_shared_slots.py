"""Users share slots: nobody holds them all, and whoever holds the fewest comes next."""

from contextlib import AsyncExitStack

import anyio
import pytest

from app.http import shared_slots
from app.http.shared_slots import SharedSlots
from app.platform.errors import TooManyRequests, Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def slots():
    return SharedSlots(total=3, per_user=2, most_waiting_per_user=2, busy="Busy.")


async def test_a_user_leaves_slots_to_others(slots):
    async with AsyncExitStack() as held:
        for user in ("ann", "ann", "bob"):
            await held.enter_async_context(slots.slot(user))
        with anyio.move_on_after(0.01) as waited:
            await held.enter_async_context(slots.slot("ann"))
        assert waited.cancelled_caught


async def test_a_free_slot_goes_to_who_holds_fewest_then_to_who_waits_longest(slots):
    order = []

    async def ask(user, name):
        async with slots.slot(user):
            order.append(name)
            await anyio.wait_all_tasks_blocked()

    async with AsyncExitStack() as held, anyio.create_task_group() as tasks:
        async with AsyncExitStack() as first:
            for user in ("ann", "bob"):
                await held.enter_async_context(slots.slot(user))
            await first.enter_async_context(slots.slot("bob"))
            for user, name in (("ann", "ann 1"), ("ann", "ann 2"), ("eve", "eve 1")):
                tasks.start_soon(ask, user, name)
                await anyio.wait_all_tasks_blocked()
            assert order == []
        await anyio.wait_all_tasks_blocked()
    assert order == ["eve 1", "ann 1", "ann 2"]


async def test_who_gives_up_waiting_leaves_nothing_behind(slots):
    for _ in range(10):
        async with slots.slot("ann"), slots.slot("ann"):
            with anyio.move_on_after(0):
                async with slots.slot("ann"):
                    pass
    async with slots.slot("ann"), slots.slot("ann"), slots.slot("bob"):
        pass


async def test_waiting_has_an_end_and_a_bound(slots, monkeypatch):
    monkeypatch.setattr(shared_slots, "WAIT_SECONDS", 0.05)
    refused = []

    async def ask():
        try:
            async with slots.slot("ann"):
                pass
        except (TooManyRequests, Unavailable) as error:
            refused.append(type(error))

    async with slots.slot("ann"), slots.slot("ann"), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert refused == [TooManyRequests, Unavailable, Unavailable]
