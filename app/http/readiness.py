"""Whether this process should be sent requests, by what concerns it alone and not by what all API processes share.

The server waits for shared parts that are unavailable (database, storage, broker): removing every process
from a load balancer would refuse requests that it can answer.
"""

from app.http.health_checks import FAULTS, HealthChecks, Part, PartState
from app.http.spool_space import SpoolSpace

# Without these a process that has just started may be set up wrong; late wake-ups of workers do not matter.
NEEDED_AT_START = (Part.DATABASE, Part.MIGRATIONS, Part.STORAGE)

IS_STOPPING = "The server is stopping."
NO_ROOM = "There is no room for uploads: the spool's disk is full."


class Readiness:
    """A process is ready once it has reached everything that it needs, until it stops, while its spool has space."""

    def __init__(self, checks: HealthChecks, spool_space: SpoolSpace) -> None:
        self._checks = checks
        self._spool_space = spool_space
        self._has_started = False
        self._is_stopping = False

    def stop(self) -> None:
        """Mark the process as not ready from now on."""
        self._is_stopping = True

    async def faults(self) -> list[str]:
        """The reasons why this process cannot serve; none if it is ready. Within 5 s."""
        if self._is_stopping:
            return [IS_STOPPING]
        if not self._has_started:
            states = await self._checks.parts()
            missing = [FAULTS[part] for part in NEEDED_AT_START if states[part] is PartState.FAILED]
            if missing:
                return missing
            self._has_started = True
        return [] if self._spool_space.has_room else [NO_ROOM]
