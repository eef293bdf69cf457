"""`/_mock`: how tests steer the mock. No key is needed: nothing in it is worth one."""

from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field, ValidationError

from app.mock.control import Mock
from app.mock.options import (
    ADMIN_KEY,
    FIRST_MOMENT,
    KEY,
    MockOptions,
    Transitions,
    in_utc,
)
from app.mock.rules import Rule, Strict
from app.platform.errors import InvalidRequest

router = APIRouter(prefix="/_mock", include_in_schema=False)


class Seed(Strict):
    """What is left out: seed 0, the first moment of 2026, and the transitions that the mock was started with."""

    seed: int = 0
    clock: datetime | None = FIRST_MOMENT
    transitions: str | None = None


class Rules(Strict):
    rules: Annotated[list[Rule], Field(min_length=1, max_length=100)]


def mock_of(request: Request) -> Mock:
    mock: Mock = request.app.state.mock
    return mock


@router.get("")
def get_mock(request: Request) -> dict[str, Any]:
    """What is in force."""
    return _present(mock_of(request))


@router.post("/reset")
def reset(request: Request) -> dict[str, Any]:
    """Forget everything, and go on as at the start."""
    mock = mock_of(request)
    mock.begin_anew(mock.options)
    return _present(mock)


@router.post("/seed")
def seed(request: Request, asked: Annotated[Seed | None, Body()] = None) -> dict[str, Any]:
    """Forget everything, and have ids and times come out as these say."""
    mock, asked = mock_of(request), asked or Seed()
    transitions = (
        mock.options.transitions if asked.transitions is None else Transitions.parse(asked.transitions)
    )
    clock = None if asked.clock is None else in_utc(asked.clock)
    mock.begin_anew(MockOptions(seed=asked.seed, clock=clock, transitions=transitions))
    return _present(mock)


@router.get("/requests")
def list_requests(request: Request) -> dict[str, Any]:
    """The last thousand requests, the first first."""
    return {"requests": [asdict(received) for received in mock_of(request).recorder.all()]}


@router.delete("/requests", status_code=HTTPStatus.NO_CONTENT)
def forget_requests(request: Request) -> Response:
    mock_of(request).recorder.clear()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/faults")
def list_faults(request: Request) -> dict[str, Any]:
    """The rules in force: how many requests each saw, and to how many it applied."""
    return {
        "rules": [
            {**counted.rule.model_dump(exclude_defaults=True), "seen": counted.seen, "hits": counted.hits}
            for counted in mock_of(request).faults.counted()
        ]
    }


@router.post("/faults")
def add_faults(request: Request, asked: Annotated[Any, Body()]) -> dict[str, Any]:
    """Add rules behind those that there are: one, a list, or `{"rules": [...]}`."""
    mock_of(request).faults.add(_understand(asked))
    return list_faults(request)


@router.delete("/faults", status_code=HTTPStatus.NO_CONTENT)
def clear_faults(request: Request) -> Response:
    mock_of(request).faults.clear()
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _understand(asked: Any) -> list[Rule]:
    """Raises InvalidRequest with one message per fault."""
    rules = asked["rules"] if isinstance(asked, dict) and asked.keys() == {"rules"} else asked
    try:
        return Rules.model_validate({"rules": rules if isinstance(rules, list) else [rules]}).rules
    except ValidationError as error:
        faults = [
            f"`{'.'.join(str(part) for part in fault['loc'])}`: {fault['msg']}." for fault in error.errors()
        ]
        raise InvalidRequest(*faults) from error


def _present(mock: Mock) -> dict[str, Any]:
    options = mock.present
    return {
        "seed": options.seed,
        "clock": None if options.clock is None else options.clock.isoformat().replace("+00:00", "Z"),
        "transitions": str(options.transitions),
        "key": KEY,
        "adminKey": ADMIN_KEY,
    }
