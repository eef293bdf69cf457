"""The result of one check of `regen doctor`."""

from dataclasses import dataclass
from enum import Enum
from typing import Self


class FindingState(Enum):
    """`ABSENT` and `MISSING` both need something installed or changed; the server runs without an absent one."""

    OK = "ok"
    ABSENT = "absent"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. `fix` says what to do about it; empty where nothing is to be done."""

    subject: str
    state: FindingState
    found: str
    fix: str = ""

    @classmethod
    def ok(cls, subject: str, found: str) -> Self:
        return cls(subject=subject, state=FindingState.OK, found=found)

    @classmethod
    def absent(cls, subject: str, found: str, *, fix: str = "") -> Self:
        return cls(subject=subject, state=FindingState.ABSENT, found=found, fix=fix)

    @classmethod
    def missing(cls, subject: str, found: str, *, fix: str) -> Self:
        return cls(subject=subject, state=FindingState.MISSING, found=found, fix=fix)
