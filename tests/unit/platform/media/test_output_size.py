import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.errors import InvalidRequest
from app.platform.media.output_size import OutputSize, parse_scale, parse_side

SIDES = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("asked", "size", "output"),
    [
        ({}, (3, 5), (12, 20)),
        ({"scale": 1}, (1920, 1080), (1920, 1080)),
        ({"scale": 1}, (1, 241), (2, 242)),
        ({"scale": 3}, (241, 135), (724, 406)),
        ({"max_width": 1920}, (720, 576), (1920, 1536)),
        ({"max_height": 2160}, (1920, 1080), (3840, 2160)),
        ({"max_width": 853, "max_height": 480}, (640, 480), (640, 480)),
        ({"max_width": 1920, "max_height": 1080}, (240, 136), (960, 544)),
        ({"max_width": 2}, (4000, 2), (2, 2)),
    ],
)
def test_sizes(asked: dict[str, int], size: tuple[int, int], output: tuple[int, int]) -> None:
    assert OutputSize(**asked).of(*size) == output


@given(SIDES, SIDES, st.none() | st.integers(2, 9000), st.none() | st.integers(2, 9000))
def test_bounds_hold_and_the_shape_stays(
    width: int, height: int, max_width: int | None, max_height: int | None
) -> None:
    across, down = OutputSize(max_width=max_width, max_height=max_height).of(width, height)
    assert across % 2 == down % 2 == 0
    assert 2 <= across <= min(4 * width, max_width or 2**20)
    assert 2 <= down <= min(4 * height, max_height or 2**20)
    assert abs(across * height - down * width) <= 2 * (width + height)


def test_what_is_no_size() -> None:
    assert (parse_scale("3"), parse_scale("2.0"), parse_side(" 854 ", name="max_width")) == (3, 2, 854)
    for text in ("0", "5", "1.5", "-1", "2x", "", "9" * 70):
        with pytest.raises(InvalidRequest, match="`scale` must be 1, 2, 3 or 4; received"):
            parse_scale(text)
    for text in ("0", "1", "16385", "1e3", "100.5", "-20"):
        with pytest.raises(
            InvalidRequest, match="`max_width` must be a whole number of pixels from 2 to 16384"
        ):
            parse_side(text, name="max_width")
