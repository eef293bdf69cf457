"""The present fault rules, how often each was applied, and the faults of renders."""

import random
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from app.mock.fault_rules import FaultAction, FaultRule, RenderFault

# Whether URLs signed now have already expired.
urls_expire: ContextVar[bool] = ContextVar("mock_urls_expire", default=False)


@dataclass(kw_only=True)
class CountedRule:
    """A rule, how many requests matched it (`seen`), and to how many it was applied (`hits`)."""

    rule: FaultRule
    source: random.Random
    seen: int = 0
    hits: int = 0

    def applies_to_next(self) -> bool:
        """Counts a matching request. Returns whether the rule is applied to it."""
        self.seen += 1
        rule = self.rule
        if self.seen <= rule.after or (rule.times is not None and self.hits >= rule.times):
            return False
        if rule.probability < 1 and self.source.random() >= rule.probability:
            return False
        self.hits += 1
        return True


@dataclass
class ActiveFaults:
    """Safe to use from any thread."""

    seed: int = 0
    _rules: list[CountedRule] = field(default_factory=list)
    _renders: dict[str, list[RenderFault]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rules: Iterable[FaultRule]) -> None:
        with self._lock:
            for rule in rules:
                source = random.Random(f"{self.seed}/{len(self._rules)}")  # noqa: S311  (repeatable)
                self._rules.append(CountedRule(rule=rule, source=source))

    def clear(self) -> None:
        """Removes all rules. The faults of existing renders stay."""
        with self._lock:
            self._rules.clear()

    def restart(self, *, seed: int) -> None:
        with self._lock:
            self.seed = seed
            self._rules.clear()
            self._renders.clear()

    def counted(self) -> list[CountedRule]:
        with self._lock:
            return [replace(rule) for rule in self._rules]

    def next_of(self, method: str, path: str) -> FaultAction | None:
        """The action for this request, or for the delivery WEBHOOK of an event; None to let it pass."""
        with self._lock:
            for counted in self._rules:
                if counted.rule.matches(method, path) and counted.applies_to_next():
                    return counted.rule.action
        return None

    def add_render_fault(self, request_id: str, fault: RenderFault) -> None:
        """Gives the fault to the render that this request creates, if it creates one."""
        with self._lock:
            self._renders.setdefault(request_id, []).append(fault)

    def take_render_fault(self, request_id: str | None) -> RenderFault | None:
        """The fault of a render that this request created. Each is returned once."""
        with self._lock:
            waiting = self._renders.get(request_id or "")
            fault = waiting.pop(0) if waiting else None
            if waiting == []:
                self._renders.pop(request_id or "", None)
            return fault
