"""`target_fps`: what is understood, what it comes to, what is refused."""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.platform.errors import InvalidRequest
from app.platform.media.rates import MAX_DENOMINATOR, parse_target_fps, snap_ntsc


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        ("24", Fraction(24)),
        (" 25 ", Fraction(25)),
        (30, Fraction(30)),
        (1, Fraction(1)),
        ("1", Fraction(1)),
        ("1.0", Fraction(1)),
        (120, Fraction(120)),
        ("120.000", Fraction(120)),
        (120.0, Fraction(120)),
        ("12.5", Fraction(25, 2)),
        (12.5, Fraction(25, 2)),
        ("+12.5", Fraction(25, 2)),
        ("12.", Fraction(12)),
        ("1e1", Fraction(10)),
        ("1.2E+2", Fraction(120)),
        (".5e1", Fraction(5)),
        ("23.976", Fraction(24000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (Decimal("23.976"), Fraction(24000, 1001)),
        ("23.98", Fraction(24000, 1001)),
        ("23.97", Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        ("29.970", Fraction(30000, 1001)),
        ("29.970000", Fraction(30000, 1001)),
        ("29.97003", Fraction(30000, 1001)),
        ("29.97002997002997", Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (29.970029830932617, Fraction(30000, 1001)),  # the single-precision neighbour
        (59.94, Fraction(60000, 1001)),
        ("59.94005994005994", Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (119.88011932373047, Fraction(120000, 1001)),  # likewise
        ("30000/1001", Fraction(30000, 1001)),
        ("2997/100", Fraction(2997, 100)),
        ("25/2", Fraction(25, 2)),
        ("29.96", Fraction(749, 25)),
        ("23.9", Fraction(239, 10)),
        ("23.5", Fraction(47, 2)),
        ("33.3333", Fraction(333333, 10000)),
    ],
)
def test_what_is_understood(value: str | float | Decimal, rate: Fraction) -> None:
    assert parse_target_fps(value) == rate


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "abc",
            "24fps",
            "0",
            "-1",
            "-24",
            "0.5",
            "0.999",
            "0.9999999",
            "121",
            "120.0001",
            "120.00000001",
        ),
        *(
            "1e400",
            "1e-400",
            "1e99999999",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "Infinity",
            "1_0",
            "0x18",
            "２４",
            "24,5",
        ),
        *(
            "24/0",
            "0/0",
            "1/2",
            "121/1",
            "-24/-1",
            "24/1/1",
            "1e1/1",
            "__import__('os')",
            "24\n25",
            "9" * 5000,
        ),
        *("2" + "4" * 100, "24." + "0" * 100, "1" * 30 + "/1"),
        *(0, -1, 121, 10**5000, 0.5, 120.0001, float("nan"), float("inf"), float("-inf"), 1e308, True),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e400"), Decimal("0.5")),
    ],
    ids=lambda value: str(type(value)),
)
def test_what_is_refused(value: str | float | Decimal) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_target_fps(value)
    assert "target_fps" in refused.value.message
    assert len(refused.value.message) < 200


def _written(rate: Fraction, places: int, rounding: str) -> Decimal:
    digits = Decimal(rate.numerator * 10**30 // rate.denominator).scaleb(-30)
    return digits.quantize(Decimal(1).scaleb(-places), rounding=rounding)


@given(
    n=st.integers(2, 120),
    places=st.integers(2, 20),
    rounding=st.sampled_from([ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_DOWN]),
)
def test_a_written_ntsc_rate_is_understood(n: int, places: int, rounding: str) -> None:
    written = _written(Fraction(n * 1000, 1001), places, rounding)
    # 2.00 is what both 2 and 2000/1001 are with two places, and 95.90 both 95.9 and 96000/1001: these mean themselves.
    assume(int(written.normalize().as_tuple().exponent) <= -2)
    assert parse_target_fps(str(written)) == Fraction(n * 1000, 1001)
    assert parse_target_fps(written) == Fraction(n * 1000, 1001)


@given(n=st.integers(2, 120))
def test_the_float_of_an_ntsc_rate_is_understood(n: int) -> None:
    assert parse_target_fps(n * 1000 / 1001) == Fraction(n * 1000, 1001)


@given(whole=st.integers(1, 120), zeros=st.integers(0, 20))
def test_a_whole_number_means_itself(whole: int, zeros: int) -> None:
    assert parse_target_fps(whole) == whole
    assert parse_target_fps(float(whole)) == whole
    assert parse_target_fps(f"{whole}.{'0' * zeros}") == whole


@given(tenths=st.integers(10, 1200))
def test_one_decimal_place_is_never_snapped(tenths: int) -> None:
    assert parse_target_fps(f"{tenths // 10}.{tenths % 10}") == Fraction(tenths, 10)


@given(rate=st.fractions(1, 120, max_denominator=MAX_DENOMINATOR))
def test_a_fraction_means_itself(rate: Fraction) -> None:
    assert parse_target_fps(f"{rate.numerator}/{rate.denominator}") == rate


@given(value=st.decimals(1, 120, allow_nan=False, places=6))
def test_a_decimal_stays_within_its_last_place(value: Decimal) -> None:
    rate = parse_target_fps(value)
    assert rate == Fraction(value) or (rate * 1001 / 1000).denominator == 1
    # 23.9 may have been 23.976 cut off only if it had been written with two places or more.
    places = -int(value.normalize().as_tuple().exponent)
    assert abs(rate - Fraction(value)) < Fraction(1, 10 ** max(places, 0))


@given(value=st.one_of(st.text(max_size=80), st.floats(), st.integers(), st.decimals(allow_nan=True)))
def test_anything_else_is_a_rate_in_range_or_refused(value: str | float | Decimal) -> None:
    try:
        rate = parse_target_fps(value)
    except InvalidRequest as refused:
        assert refused.status_code == 400
    else:
        assert 1 <= rate <= 120
        assert rate.numerator < 2**31


def test_a_containers_decimal_is_snapped_and_its_neighbour_is_not() -> None:
    step = Fraction(1, 1000)
    assert snap_ntsc(Fraction(2997, 100), step=step) == Fraction(30000, 1001)
    assert snap_ntsc(Fraction(2996, 100), step=step) == Fraction(2996, 100)
    assert snap_ntsc(Fraction(30), step=step) == 30
    assert snap_ntsc(Fraction(1, 3600), step=step) == Fraction(1, 3600)
