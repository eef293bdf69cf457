"""The end of the API's process: soon, whatever its threads wait for."""

import os
import threading

import pytest

from app.serving import server


@pytest.mark.parametrize("is_stuck", [True, False])
def test_threads_in_a_system_call_do_not_hold_up_the_end(monkeypatch, is_stuck):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(server, "LEFT_THREADS_SECONDS", 0.2)
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), thread])
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(60,))
    thread.start()
    if not is_stuck:
        release.set()
    try:
        server.end_process()
    finally:
        release.set()
        thread.join()
    assert ended == ([os.EX_OK] if is_stuck else [])
