import pytest

from app.serving import supervisor
from app.serving.supervisor import SupervisedProcess


@pytest.fixture
def pause_after(monkeypatch):
    """The pause before a child is started again that lived that long, in seconds."""
    planned = []

    class Log:
        def warning(self, event, *, restart_in_seconds, **facts):
            planned.append(restart_in_seconds)

    monkeypatch.setattr(supervisor, "log", Log())
    process = SupervisedProcess("child", lambda: pytest.fail("nothing is started"), grace_seconds=1)

    def after(lived_seconds):
        process._plan_start(lived_seconds)
        return planned[-1]

    return after


def test_pauses_double_up_to_half_a_minute(pause_after):
    assert [pause_after(0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_healthy_minute_starts_the_pauses_anew(pause_after):
    for _ in range(5):
        pause_after(0.5)
    assert pause_after(61) == 1
    assert pause_after(59) == 2
