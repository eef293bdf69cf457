import os

from app.platform.media.pipes import STDERR_KEPT_BYTES, PipeTail


def test_what_was_written_is_in_the_tail_also_before_the_thread_reads():
    """What a decoder complains of before the first frame is told apart from what it complains of later."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        tail = PipeTail(pipe, name="tail")
        assert tail.text == ""
        os.write(writing, b"a complaint")
        assert tail.text == "a complaint"
        tail.start()
        os.write(writing, b" and another")
        assert tail.text == "a complaint and another"
        os.write(writing, b"x" * STDERR_KEPT_BYTES)
        assert tail.text == "x" * STDERR_KEPT_BYTES
        os.close(writing)
        tail.join(10)
        assert not tail.is_alive()
        assert tail.text == "x" * STDERR_KEPT_BYTES
