"""Faults on request: which rules there are, how often each applied, and what they want next."""

import random
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from app.mock.rules import WEBHOOK, Action, RenderFault, Rule

# Whether URLs that are signed now shall have expired.
urls_expire: ContextVar[bool] = ContextVar("mock_urls_expire", default=False)


@dataclass(kw_only=True)
class _Entry:
    rule: Rule
    chance: random.Random
    seen: int = 0
    hits: int = 0


@dataclass(kw_only=True)
class CountedRule:
    """A rule, the requests that matched it, and those to which it applied."""

    rule: Rule
    seen: int
    hits: int


@dataclass
class Faults:
    """The rules in force. Safe to use from any thread."""

    seed: int = 0
    _entries: list[_Entry] = field(default_factory=list)
    _renders: dict[str, list[RenderFault]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rules: Iterable[Rule]) -> None:
        with self._lock:
            for rule in rules:
                chance = random.Random(f"{self.seed}/{len(self._entries)}")  # noqa: S311  (it is to repeat)
                self._entries.append(_Entry(rule=rule, chance=chance))

    def clear(self) -> None:
        """No rule any more. What was decided of a render stays."""
        with self._lock:
            self._entries.clear()

    def restart(self, *, seed: int) -> None:
        with self._lock:
            self.seed = seed
            self._entries.clear()
            self._renders.clear()

    def counted(self) -> list[CountedRule]:
        with self._lock:
            return [CountedRule(rule=entry.rule, seen=entry.seen, hits=entry.hits) for entry in self._entries]

    def next_of(self, method: str, path: str) -> Action | None:
        """What is to be done with this request; None to let it pass."""
        with self._lock:
            for entry in self._entries:
                if entry.rule.matches(method, path) and _applies(entry):
                    return entry.rule.action
        return None

    def next_of_webhook(self, event: str) -> Action | None:
        """What is to be done with this sending of a webhook."""
        return self.next_of(WEBHOOK, event)

    def note_render(self, request_id: str, fault: RenderFault) -> None:
        """The render that this request makes, if it makes one, is to have the fault."""
        with self._lock:
            self._renders.setdefault(request_id, []).append(fault)

    def take_render(self, request_id: str | None) -> RenderFault | None:
        """The fault of a render that this request made. Each is taken once."""
        with self._lock:
            waiting = self._renders.get(request_id or "")
            fault = waiting.pop(0) if waiting else None
            if waiting == []:
                self._renders.pop(request_id or "", None)
            return fault


def _applies(entry: _Entry) -> bool:
    entry.seen += 1
    rule = entry.rule
    if entry.seen <= rule.after or (rule.times is not None and entry.hits >= rule.times):
        return False
    if rule.probability < 1 and entry.chance.random() >= rule.probability:
        return False
    entry.hits += 1
    return True
