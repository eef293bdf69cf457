"""Two workers of unlike precisions at one render, with stand-in networks."""

from collections.abc import Callable, Iterator

import pytest

from app.renders.statuses import RenderStatus
from app.work.queries import Job
from models.catalog import DEFAULT_ENGINE
from tests.integration.worker.conftest import Workplace
from tests.integration.worker.worker_in_process import WorkerInProcess
from worker.registration import Registration


class Worker(WorkerInProcess):
    """With a row, and networks in that precision or in fp32."""

    def __init__(self, place: Workplace, precision: str) -> None:
        settings = place.settings.model_copy(update={"precision": precision})
        super().__init__(place, name=precision, settings=settings)
        self.registration = Registration(self.ledger, device="cpu")
        self.registration.beat()

    def work_once(self) -> str | None:
        """Claims one unit, if there is any, and does it. Returns its kind."""
        claimed: list[Job | None] = []

        def claim(_kinds: object) -> Job | None:
            claimed.append(None if claimed else self.ledger.claim())
            return claimed[-1]

        self.work(claim)
        return claimed[0].kind if claimed[0] else None


@pytest.fixture
def crew(workplace: Callable[..., Workplace]) -> Iterator[tuple[Worker, Worker]]:
    """Each knows the other."""
    place = workplace(segment_seconds="0.7")
    able, exact = Worker(place, "bf16"), Worker(place, "fp32")
    yield able, exact
    able.close()
    exact.close()


def test_a_render_is_made_in_one_precision_and_in_fp32_from_where_none_is_left_that_has_it(
    crew: tuple[Worker, Worker],
) -> None:
    able, exact = crew
    reduced = able.units.networks.own_precision(DEFAULT_ENGINE)
    assert reduced.startswith("bf16-")
    render_id = able.place.submit()
    assert [able.work_once(), able.work_once(), exact.work_once()] == ["prepare", "upscale", None]
    assert able.work_once() == "upscale"
    able.registration.start()
    able.registration.stop()  # as a worker that ends
    exact.registration.beat()
    exact.work()
    render = exact.render(render_id)
    assert (render.status, render.precision) == (RenderStatus.COMPLETED, reduced)
    assert [segment.precision for segment in render.segments] == [reduced, reduced, "fp32"]
    (warning,) = render.warnings
    assert f"different precisions ({reduced}, fp32)" in warning
