"""All segments of a render are computed in the precision of the worker that began it.

Precisions are named by their results (`Device.numerics`): bf16 of unlike processors is not one.
"""

from collections.abc import Callable, Iterable

from app.platform.errors import LeftToOthers
from app.work.ledger import WorkLedger
from app.work.queries import Job, SegmentJob

# Every worker has it.
EXACT = "fp32"


def agree(job: Job, ledger: WorkLedger, own: Callable[[], str]) -> str:
    """Returns the precision in which this worker computes the claimed segment.

    It is the render's. If this worker is the first, `own` is asked for what becomes the render's. A precision that this
    worker lacks is replaced by fp32: no worker that has it was left when the segment was claimed. Raises LeftToOthers
    if such a worker began the render since the claim.
    """
    agreed = job.precision or ledger.agree_on_precision(job, own())
    if not ledger.precisions or agreed in ledger.precisions:
        return agreed
    if job.precision is None and (job.engine, agreed) in ledger.left_to_others:
        raise LeftToOthers("A worker with another precision was first.", detail=agreed)
    return EXACT


def several_precisions(segments: Iterable[SegmentJob]) -> str | None:
    """Returns a warning if the segments were not all computed in one precision, as far as it is known."""
    found = sorted({segment.precision for segment in segments if segment.precision is not None})
    if len(found) < 2:
        return None
    return (
        f"Workers with unlike hardware made parts of this video in different precisions ({', '.join(found)}), because "
        "none that could go on in the first was left. Where they meet, samples may differ by a code or two."
    )
