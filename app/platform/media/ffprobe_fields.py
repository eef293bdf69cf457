"""Parsing of the values that ffprobe prints: numbers as text, fractions, and the many spellings of a missing value."""

import re
from fractions import Fraction
from typing import Any

UNTAGGED = frozenset({None, "unknown", "unspecified", "reserved", "N/A"})


def disposition(stream: dict[str, Any], name: str) -> bool:
    return bool(stream.get("disposition", {}).get(name) == 1)


def tagged(stream: dict[str, Any], name: str) -> str | None:
    value = stream.get(name)
    return None if value in UNTAGGED else str(value)


def section_list(section: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = section.get(name, [])
    return value if isinstance(value, list) else []


def integer(section: dict[str, Any], name: str) -> int:
    """A whole number, which ffprobe prints as a number or as text; 0 if missing."""
    value = section.get(name, 0)
    return int(value) if re.fullmatch(r"-?[0-9]{1,19}", str(value)) else 0


def fraction(text: str | None, *, separator: str = "/") -> Fraction | None:
    """`30000/1001`, `4:3` or `1.402733`; None for `0/0`, `0:1`, `N/A` and the like."""
    if text is None:
        return None
    if re.fullmatch(rf"-?[0-9]{{1,19}}(\.[0-9]{{1,9}}|{separator}[0-9]{{1,19}})?", text) is None:
        return None
    numerator, _, denominator = text.partition(separator)
    if separator not in text:
        return Fraction(text)
    return Fraction(int(numerator), int(denominator)) if int(numerator) and int(denominator) else None


def clock(text: str | None) -> Fraction | None:
    """Seconds of a time such as `01:00:01.000000000`; None for anything else."""
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)", text or "")
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else None
