import anyio
import pytest

from app.http.superseded_requests import LatestAlone

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_a_later_request_ends_the_earlier_one_for_the_same_thing_alone():
    latest, ended, held = LatestAlone(), [], anyio.Event()

    async def ask(name, thing):
        try:
            with latest.alone(thing, otherwise=lambda: ValueError("later")):
                await held.wait()
            ended.append(name)
        except ValueError:
            ended.append(f"{name} is ended")

    async with anyio.create_task_group() as tasks:
        for name, thing in (("first", 1), ("other", 2), ("second", 1), ("third", 1)):
            tasks.start_soon(ask, name, thing)
            await anyio.wait_all_tasks_blocked()
        assert ended == ["first is ended", "second is ended"]
        held.set()
    assert sorted(ended[2:]) == ["other", "third"]
    assert latest._scopes == {}


async def test_a_later_request_may_end_before_the_earlier_one_has_cleaned_up():
    latest, cleaned_up, errors = LatestAlone(), anyio.Event(), []

    async def earlier():
        try:
            with latest.alone(1, otherwise=lambda: ValueError("later")):
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await cleaned_up.wait()
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(earlier)
        await anyio.wait_all_tasks_blocked()
        with latest.alone(1, otherwise=lambda: ValueError("later")):
            await anyio.wait_all_tasks_blocked()
        cleaned_up.set()
    assert [type(error) for error in errors] == [ValueError]
