"""Whether this process should be sent requests: what concerns it alone, and nothing that all API processes share.

A part that is away for all of them (database, storage, broker) is ridden out: taking every process out of a load
balancer for it would refuse what the server can answer.
"""

from app.http.health_checks import FAULTS, HealthChecks, Part, PartState
from app.http.spool_space import SpoolSpace

# Without these a process that has just started may be set up wrong; workers that are woken late are no reason.
NEEDED_AT_START = (Part.DATABASE, Part.MIGRATIONS, Part.STORAGE)

IS_STOPPING = "The server is stopping."
NO_ROOM = "There is no room for uploads: the spool's disk is full."


class Readiness:
    """A process is ready once it has reached all that it needs, until it stops, while there is room in its spool."""

    def __init__(self, checks: HealthChecks, spool_space: SpoolSpace) -> None:
        self._checks = checks
        self._spool_space = spool_space
        self._has_started = False
        self._is_stopping = False

    def stop(self) -> None:
        """From now on it is not ready."""
        self._is_stopping = True

    async def faults(self) -> list[str]:
        """Sentences on what keeps this process from serving; none when it is ready. Within 5 s."""
        if self._is_stopping:
            return [IS_STOPPING]
        if not self._has_started:
            states = await self._checks.parts()
            missing = [FAULTS[part] for part in NEEDED_AT_START if states[part] is PartState.FAILED]
            if missing:
                return missing
            self._has_started = True
        return [] if self._spool_space.has_room else [NO_ROOM]
