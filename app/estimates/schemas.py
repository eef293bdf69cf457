"""Estimates."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from app.estimates import service
from app.estimates.suggestions import Suggestion
from app.http.body import Body, Number, with_example
from app.renders.representation import shown_options
from app.renders.schemas import OptionFacts, VideoFactsBody
from app.renders.stored_options import work_options_of

_EXAMPLE = {
    "engine": "regen-4x-lite",
    "targetFps": 50,
    "targetFpsExact": "50/1",
    "input": {"width": 240, "height": 136, "frameRate": 25, "durationSeconds": 2, "frames": 50},
    "output": {"width": 960, "height": 544, "frameRate": 50, "durationSeconds": 2, "frames": 100},
    "cost": 0.052224,
    "expectedSeconds": 92.8,
    "waitSeconds": 0,
    "measuredOn": ["CPU, x86_64, 2 threads"],
    "accepted": True,
    "refusals": [],
    "suggestedEngine": {
        "engine": "regen-4x",
        "reason": "4 frames that were looked at seem photographed, or rendered in detail: 94% of their area "
        "changes its colour, most of it softly. `regen-4x` is made for such pictures; it costs 2 times as much as "
        "`regen-4x-lite` and takes longer. This is a guess: a preview shows it.",
    },
}


class SuggestedEngine(Body):
    """An engine for pictures such as this video's. It is a guess from a few frames, and never chosen by itself."""

    engine: str = Field(description="A value for `engine`.")
    reason: str = Field(description="Why, in sentences.")


class Estimate(OptionFacts):
    input: VideoFactsBody | None = Field(
        None,
        description="Left out, like `output` and `cost`, when the video is too far over a limit to be read.",
    )
    output: VideoFactsBody | None = None
    cost: Number | None = Field(None, description="Gigapixels of the output times the engine's multiplier.")
    expected_seconds: Number | None = Field(
        None,
        description="How long the work takes with all present workers and nothing else to do. Left out, like "
        "`waitSeconds`, while no such worker's speed was measured.",
    )
    wait_seconds: Number | None = Field(None, description="The additional wait for queued and running work.")
    measured_on: list[str] | None = Field(
        None, description="The devices on whose speeds these times are based."
    )
    accepted: bool = Field(description="Whether the render would be accepted now.")
    refusals: list[str] = Field(description="The sentences that would refuse it.")
    suggested_engine: SuggestedEngine | None = Field(
        None,
        description="Left out where the pictures are of no clear kind, or could not be looked at in time.",
    )
    warnings: list[str] | None = Field(None, description="About the request, if there are any.")

    @classmethod
    def of(
        cls, estimate: service.Estimate, *, suggestion: Suggestion | None, warnings: Sequence[str]
    ) -> Self:
        options, times = estimate.options, estimate.times
        return cls(
            **shown_options(
                work_options_of(options),
                target_fps_sent=options.target_fps.sent if options.target_fps else None,
            ),
            input=estimate.input and VideoFactsBody.model_validate(estimate.input),
            output=estimate.output and VideoFactsBody.model_validate(estimate.output),
            cost=estimate.cost,
            expected_seconds=times and times.expected_seconds,
            wait_seconds=times and times.wait_seconds,
            measured_on=times and list(times.measured_on),
            accepted=not estimate.refusals,
            refusals=list(estimate.refusals),
            suggested_engine=suggestion
            and SuggestedEngine(engine=suggestion.engine, reason=suggestion.reason),
            warnings=[*warnings] or None,
        )


class EstimateBody(Body):
    model_config = with_example({"estimate": _EXAMPLE})

    estimate: Estimate
