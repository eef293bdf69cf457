import pytest

from app.platform.quoting import Verbatim, quoted

DEEP: list = []
for _level in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("30,5", '"30,5"'),
        ("", '""'),
        ('"regen-4x"', r'"\"regen-4x\""'),
        ("a\x00\x1b[31m\r\nb", r'"a\u0000\u001b[31m\r\nb"'),
        ("\u202eevil\u2028", r'"\u202eevil\u2028"'),
        ("\ud800", r'"\ud800"'),
        ("Zürich 東京", '"Zürich 東京"'),
        ("x" * 10**6, f'"{"x" * 60}…"'),
        (Verbatim("29.970"), "29.970"),
        (7, "7"),
        (None, "null"),
        (True, "true"),
        ({"a": [1, "b"]}, '{"a": [1, "b"]}'),
        ([1] * 10**6, "[" + "1, " * 19 + "1,…"),
        (DEEP, f"{'[' * 60}…"),
        (10**5000, "a number of thousands of digits"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int | list) else type(value).__name__,
)
def test_what_was_received_is_quoted_on_one_short_line(value: object, shown: str) -> None:
    assert quoted(value) == shown
