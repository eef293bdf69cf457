"""Whether a rule's route can match any request: one that cannot would make a test that tests nothing."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import cache

from app.mock.fault_rules import ANYTHING, WEBHOOK, FaultRule
from app.platform.errors import InvalidRequest
from app.webhooks.statuses import WebhookEvent

# A parameter of a path in a template: `{render_id}`, or `{key:path}` that may hold slashes.
_PARAMETER = re.compile(r"\{[^}:]*(:path)?\}")
SEGMENT = "{}"
PATH = "{:path}"

# A method, and the path's template.
KnownRoute = tuple[str, str]


def require_routes(rules: Sequence[FaultRule], known: Iterable[KnownRoute]) -> None:
    """Raises InvalidRequest with a sentence for each rule whose route cannot match."""
    routes = [*known, *((WEBHOOK, event.value) for event in WebhookEvent)]
    names = [f"{method} {path}" for method, path in routes]
    messages = []
    for number, rule in enumerate(rules):
        if not any(_can_match(rule, method, path) for method, path in routes):
            near = difflib.get_close_matches(rule.route, names, n=1, cutoff=0.5)
            hint = f" The nearest is `{near[0]}`." if near else ""
            messages.append(f"`rules.{number}.route`: Nothing ever matches `{rule.route}`.{hint}")
    if messages:
        raise InvalidRequest(*messages)


def _can_match(rule: FaultRule, method: str, template: str) -> bool:
    if (method == WEBHOOK) != rule.is_of_webhooks:
        return False
    wanted_method, _, wanted_path = rule.route.rpartition(" ")
    return fnmatch.fnmatchcase(method, wanted_method.upper() or ANYTHING) and _overlap(
        tuple(wanted_path), _tokens(template)
    )


@cache
def _tokens(template: str) -> tuple[str, ...]:
    """The template's characters, with its parameters as SEGMENT and PATH."""
    tokens: list[str] = []
    at = 0
    for parameter in _PARAMETER.finditer(template):
        tokens += [*template[at : parameter.start()], PATH if parameter[1] else SEGMENT]
        at = parameter.end()
    return (*tokens, *template[at:])


def _overlap(pattern: tuple[str, ...], template: tuple[str, ...]) -> bool:
    """Whether any text matches both: a pattern with `*` and `?`, and a template's tokens."""
    # The positions in the template that the pattern's characters so far can have reached.
    reached = _past_paths({0}, template)
    for character in pattern:
        if character == "*":
            reached = set(range(min(reached), len(template) + 1)) if reached else reached
            continue
        after: set[int] = set()
        for position in reached:
            if position == len(template):
                continue
            token = template[position]
            if token == PATH:
                after |= {position, position + 1}
            elif token == SEGMENT:
                after |= {position, position + 1} if character != "/" else set()
            elif character in (token, "?"):
                after.add(position + 1)
        reached = _past_paths(after, template)
    return len(template) in reached


def _past_paths(reached: set[int], template: tuple[str, ...]) -> set[int]:
    """Adds the positions behind parameters that may be empty."""
    return reached | {at + 1 for at in reached if at < len(template) and template[at] == PATH}
