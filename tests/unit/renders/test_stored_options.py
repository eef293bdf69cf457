"""A render's options come back from its row, for a retry as for its work."""

from typing import Any

from app.platform.media.work_options import WORK_OPTIONS
from app.platform.work_kinds import WorkKind
from app.renders.options import RenderOptions
from app.renders.stored_options import columns_of, options_of, work_options_of
from app.renders.tables import Render
from app.work.queries import Job
from models.catalog import ENGINES

# Of each option, a value that is not its default.
ASKED = {
    **{"engine": "regen-4x", "target_fps": "29.97", "retime": "motion", "start": "0:01.5", "end": "2"},
    **{
        "scale": "3",
        "strength": "0.5",
        "grain": "0.25",
        "stabilise": "2",
        "deinterlace": "field",
        "codec": "av1",
    },
    **{"container": "mkv", "output_quality": "high", "quality": "1", "metadata": '{"a": "b"}'},
    **{"cancel_after": "60", "priority": "7", "webhook_url": "https://example.com/"},
    **{"destination": "https://bucket.example.com/result.mp4?X-Amz-Signature=abc"},
}
BY_SIDES = {"max_width": "640", "max_height": "360"}


def test_every_option_comes_back_from_its_row() -> None:
    defaults, tried = RenderOptions().model_dump(), set()
    for asked in (ASKED, ASKED | {"scale": None} | BY_SIDES):
        options = RenderOptions.model_validate(asked)
        tried |= {name for name, value in options.model_dump().items() if value != defaults[name]}
        row = Render(**columns_of(options))
        assert options_of(row, engine=ENGINES["regen-4x"]).model_dump() == options.model_dump()
        job = Job.of(row, input_key="", kind=WorkKind.PREPARE, render_id="a", segment_id=None, attempt=1)
        assert read(job) == read(work_options_of(options)) == read(row)
        assert (job.part, job.size, job.form.codec) == (options.part, options.size, "av1")
    assert tried == RenderOptions.model_fields.keys()


def test_the_works_defaults_are_those_of_requests() -> None:
    options = work_options_of(RenderOptions())
    assert options == type(options)(engine=options.engine)


def read(stored: Any) -> dict[str, Any]:
    return {name: getattr(stored, name) for name in WORK_OPTIONS}
