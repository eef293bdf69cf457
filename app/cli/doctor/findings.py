"""The result of one check of `regen doctor`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class FindingState(StrEnum):
    """`ABSENT` and `MISSING` both need something installed or changed; the server runs without an absent one."""

    OK = "ok"
    ABSENT = "absent"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One entry of the report. `fix` says what to do about it; empty if it is ok."""

    subject: str
    state: FindingState
    found: str
    fix: str = ""

    @classmethod
    def ok(cls, subject: str, found: str) -> Self:
        return cls(subject=subject, state=FindingState.OK, found=found)

    @classmethod
    def absent(cls, subject: str, found: str, *, fix: str) -> Self:
        return cls(subject=subject, state=FindingState.ABSENT, found=found, fix=fix)

    @classmethod
    def missing(cls, subject: str, found: str, *, fix: str) -> Self:
        return cls(subject=subject, state=FindingState.MISSING, found=found, fix=fix)
