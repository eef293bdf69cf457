"""`/_mock`: the routes by which tests control the mock. They need no key."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.routing import iter_route_contexts
from pydantic import Field, ValidationError

from app.mock.control import Mock
from app.mock.fault_rules import FaultRule, StrictModel
from app.mock.middleware import is_observed
from app.mock.options import ADMIN_KEY, FIRST_MOMENT, KEY, MockOptions, Transitions, in_utc
from app.mock.rule_routes import require_routes
from app.platform.errors import InvalidRequest

LONGEST_ADVANCE_SECONDS = 366 * 24 * 3600.0

router = APIRouter(prefix="/_mock", include_in_schema=False)


class SeedRequest(StrictModel):
    """`transitions` and `strict` None: as the mock was started."""

    seed: int = 0
    clock: datetime | None = FIRST_MOMENT
    transitions: str | None = None
    strict: bool | None = None


class ClockRequest(StrictModel):
    advance_seconds: Annotated[float, Field(gt=0, le=LONGEST_ADVANCE_SECONDS)]


class FaultRuleList(StrictModel):
    rules: Annotated[list[FaultRule], Field(min_length=1, max_length=100)]


def mock_of(request: Request) -> Mock:
    mock: Mock = request.app.state.mock
    return mock


@router.get("")
def get_mock(request: Request) -> dict[str, Any]:
    """The options in force, and the keys."""
    return _options(mock_of(request))


@router.post("/reset")
def reset(request: Request) -> dict[str, Any]:
    """Removes everything, and continues as at the start."""
    mock = mock_of(request)
    mock.reset(mock.initial_options)
    return _options(mock)


@router.post("/seed")
def seed(request: Request, asked: Annotated[SeedRequest | None, Body()] = None) -> dict[str, Any]:
    """Removes everything, and takes these options."""
    mock, asked = mock_of(request), asked or SeedRequest()
    transitions = (
        mock.initial_options.transitions
        if asked.transitions is None
        else Transitions.parse(asked.transitions)
    )
    clock = None if asked.clock is None else in_utc(asked.clock)
    strict = mock.initial_options.strict if asked.strict is None else asked.strict
    mock.reset(MockOptions(seed=asked.seed, clock=clock, transitions=transitions, strict=strict))
    return _options(mock)


@router.post("/clock")
def move_clock(request: Request, asked: ClockRequest) -> dict[str, Any]:
    """Advances the clock, and returns once all due renders have changed."""
    mock = mock_of(request)
    mock.advance(timedelta(seconds=asked.advance_seconds))
    return _options(mock)


@router.get("/requests")
@router.get("/webhooks")
def list_entries(request: Request) -> dict[str, Any]:
    """The last thousand requests, or sendings of events, oldest first."""
    name = _last_segment(request)
    return {name: [asdict(entry) for entry in getattr(mock_of(request), name).all()]}


@router.get("/faults")
def list_faults(request: Request) -> dict[str, Any]:
    """The present rules, with how many requests matched each and to how many it was applied."""
    return {
        "rules": [
            {**counted.rule.model_dump(exclude_defaults=True), "seen": counted.seen, "hits": counted.hits}
            for counted in mock_of(request).faults.counted()
        ]
    }


@router.post("/faults")
def add_faults(request: Request, asked: Annotated[Any, Body()]) -> dict[str, Any]:
    """Adds rules after the existing ones: one, a list, or `{"rules": [...]}`."""
    rules = _parse_rules(asked)
    require_routes(rules, _observed_routes(request))
    mock_of(request).faults.add(rules)
    return list_faults(request)


@router.delete("/requests", status_code=HTTPStatus.NO_CONTENT)
@router.delete("/webhooks", status_code=HTTPStatus.NO_CONTENT)
@router.delete("/faults", status_code=HTTPStatus.NO_CONTENT)
def clear(request: Request) -> Response:
    getattr(mock_of(request), _last_segment(request)).clear()
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _last_segment(request: Request) -> str:
    """The name of the mock's part that the address is about."""
    return request.url.path.rsplit("/", 1)[1]


def _observed_routes(request: Request) -> Iterator[tuple[str, str]]:
    """The methods and paths of all routes to which rules apply."""
    for route in iter_route_contexts(request.app.routes):
        if route.path and is_observed(route.path):
            yield from ((method, route.path) for method in route.methods or ())


def _parse_rules(asked: Any) -> list[FaultRule]:
    """Raises InvalidRequest with one message for each error."""
    rules = asked["rules"] if isinstance(asked, dict) and asked.keys() == {"rules"} else asked
    try:
        return FaultRuleList.model_validate({"rules": rules if isinstance(rules, list) else [rules]}).rules
    except ValidationError as error:
        messages = [
            f"`{'.'.join(str(part) for part in invalid['loc'])}`: {invalid['msg']}."
            for invalid in error.errors()
        ]
        raise InvalidRequest(*messages) from error


def _options(mock: Mock) -> dict[str, Any]:
    options = mock.options
    return {
        "seed": options.seed,
        "clock": None if options.clock is None else options.clock.isoformat().replace("+00:00", "Z"),
        "now": mock.repeatable.latest().isoformat().replace("+00:00", "Z"),
        "transitions": str(options.transitions),
        "strict": options.strict,
        "key": KEY,
        "adminKey": ADMIN_KEY,
    }
