"""What processes do with the database at their start and for a first render, done once in the fork server, so that they
find it compiled: SQLAlchemy takes half of a first render's processor time for it.
"""

from fractions import Fraction

from app.accounts import queries as account_queries
from app.platform.database import Database
from app.platform.media.info import VideoProperties
from app.platform.secrets import new_id
from app.platform.work_kinds import WorkKind
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.workers import list_workers
from tests.integration.rows import a_file, a_render

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)


def render_once(database: Database) -> None:
    """A render's way through the rows of the migrated, empty `database`, which is left with them."""
    ledger = WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)
    ledger.recover()
    with database.write() as session:
        user = account_queries.add_user(session, user_id=new_id(), name="one")
        file = a_file(user.id)
        session.add(file)
        session.flush()
        a_render(session, file)
    ledger.take_sweep(every_seconds=1)
    ledger.give_back_expired()
    ledger.cancel_overdue()
    ledger.ready_units()
    ledger.leave_sweep()
    while (claim := ledger.claim()) is not None:
        ledger.renew(claim, frames_done=0)
        match claim.kind:
            case WorkKind.PREPARE:
                plans = [PlannedSegment(frames=10, plan="")]
                ledger.prepared(
                    claim, plan="", source=FACTS, output=FACTS, cost=1.0, warnings=[], segments=plans
                )
            case WorkKind.UPSCALE:
                ledger.segment_done(claim, storage_key="segment")
            case WorkKind.FINISH:
                ledger.finished(
                    claim, output_key="output", thumbnail_key="picture", output=FACTS, cost=1.0, warnings=[]
                )
    with database.read() as session:
        list_workers(session)
