"""Packets of interlaced frames, as one for each field."""

from worker.video.packet_list import Packets


def test_the_second_field_is_halfway_to_the_next_frame() -> None:
    packets = Packets(
        pts=[0, 80, 40], durations=[40, 30, 40], keyframes=[(0, -40)], held_back=1, late_ticks=3
    )
    fields = packets.as_fields()
    # In ticks of half the length.
    assert list(fields.pts) == [0, 40, 80, 120, 160, 200]
    assert list(fields.durations) == [40, 40, 40, 40, 40, 20]
    assert (fields.keyframes, fields.held_back, fields.late_ticks) == ([(0, -80)], 2, 6)


def test_fields_of_a_single_frame_share_its_duration() -> None:
    fields = Packets(pts=[7], durations=[40], keyframes=[(7, 7)]).as_fields()
    assert (list(fields.pts), list(fields.durations)) == ([14, 54], [40, 40])
    assert not Packets(pts=[], durations=[], keyframes=[]).as_fields().pts
