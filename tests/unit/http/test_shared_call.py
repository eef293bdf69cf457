import asyncio
import threading

import pytest

from app.http.shared_call import SharedCall


def shared(ask, *, limit_seconds=30.0, fresh_seconds=0.0, rest_factor=0.0):
    return SharedCall(
        ask,
        name="test",
        limit_seconds=limit_seconds,
        fresh_seconds=fresh_seconds,
        rest_factor=rest_factor,
    )


def counting():
    """A question whose answer is how often it was asked."""
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        return len(asked)

    return ask


def ask_twice(call):
    async def run():
        return await call.answer(), await call.answer()

    return asyncio.run(run())


def test_those_who_ask_together_share_one_question():
    release = threading.Event()
    asked = counting()

    def ask() -> int:
        assert release.wait(30)
        return asked()

    call = shared(ask)

    async def run():
        waiting = [asyncio.create_task(call.answer()) for _ in range(50)]
        await asyncio.sleep(0)
        # One who gives up takes nothing away from the others.
        waiting.pop().cancel()
        release.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [1] * 49


def test_an_answer_is_kept_while_it_is_fresh():
    assert ask_twice(shared(counting(), fresh_seconds=3600)) == (1, 1)
    assert ask_twice(shared(counting())) == (1, 2)


def test_a_slow_question_rests_in_proportion():
    asked = counting()

    def slowly() -> int:
        threading.Event().wait(0.02)
        return asked()

    assert ask_twice(shared(slowly, rest_factor=100_000)) == (1, 1)


def test_a_question_that_hangs_is_not_asked_again_until_it_returns():
    release = threading.Event()
    asked = counting()

    def ask() -> int:
        number = asked()
        assert release.wait(30)
        return number

    call = shared(ask, limit_seconds=0.05)

    async def run():
        for _time in range(3):
            with pytest.raises(TimeoutError):
                await call.answer()
        release.set()
        while True:
            try:
                return await call.answer()
            except TimeoutError:
                await asyncio.sleep(0.01)

    # Nobody asked in between: it is the first one's answer, or that of the first one after it.
    assert asyncio.run(run()) in (1, 2)


def test_what_the_question_raised():
    def ask() -> None:
        raise ValueError("no")

    call = shared(ask)

    async def run():
        for _time in range(2):
            with pytest.raises(ValueError, match="no"):
                await call.answer()

    asyncio.run(run())
