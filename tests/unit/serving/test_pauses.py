from app.serving.supervisor import RestartPauses


def test_pauses_double_up_to_half_a_minute():
    pauses = RestartPauses()
    assert [pauses.after(lived_seconds=0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_healthy_minute_starts_the_pauses_anew():
    pauses = RestartPauses()
    for _ in range(5):
        pauses.after(lived_seconds=0.5)
    assert pauses.after(lived_seconds=61) == 1
    assert pauses.after(lived_seconds=59) == 2
