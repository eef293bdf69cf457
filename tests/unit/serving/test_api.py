import gc

import pytest

from app.http.connections import ConnectionLimits
from app.platform.errors import ConfigurationError, FfmpegMissing
from app.platform.settings import Settings
from app.serving.api import ApiServer
from app.serving.listener import listen

LIMITS = ConnectionLimits.from_settings(Settings())


def failing_app(error):
    async def app(scope, receive, send):
        await receive()
        try:
            raise error
        except Exception as raised:
            await send({"type": "lifespan.startup.failed", "message": str(raised)})
            raise

    return app


def test_an_application_that_cannot_start_says_why():
    with listen("127.0.0.1", 0) as listener, pytest.raises(FfmpegMissing, match="no ffmpeg"):
        ApiServer(failing_app(FfmpegMissing("There is no ffmpeg.")), limits=LIMITS).serve_socket(listener)


def test_a_fault_in_the_application_is_left_to_the_log(caplog):
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigurationError, match="log"):
        ApiServer(failing_app(ZeroDivisionError("a fault")), limits=LIMITS).serve_socket(listener)
    assert "a fault" in caplog.text


def test_what_is_there_when_requests_are_accepted_is_not_searched_for_garbage(monkeypatch):
    # It would set how long threads keep the interpreter, for all that follows.
    monkeypatch.setattr("sys.setswitchinterval", lambda _seconds: None)
    there, searched = [], []

    async def app(scope, receive, send):
        await receive()
        there.append({"made by": app})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def look():
        searched.append(any(one is there[0] for one in gc.get_objects()))
        api.stop(again=True)

    api = ApiServer(app, limits=LIMITS, on_accepting=look)
    try:
        with listen("127.0.0.1", 0) as listener:
            api.serve_socket(listener)
    finally:
        gc.unfreeze()
    assert there and searched == [False]
