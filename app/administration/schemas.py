"""Wire shapes of administrators' figures."""

from functools import partial
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from app.administration.activity import Activity
from app.http.body import Body, Number, Timestamp, with_example

_Seconds = Annotated[Number, AfterValidator(partial(round, ndigits=3))]


class ActivityInterval(Body):
    ends_at: Timestamp
    unfinished: int = Field(description="Renders of all users that were queued or at work at its end.")
    oldest_seconds: _Seconds = Field(
        description="How long ago the oldest of these was made then; 0 without any."
    )
    queued: int = Field(description="Those of them that no worker had taken up yet.")
    oldest_queued_seconds: _Seconds = Field(
        description="How long ago the oldest of these was made then; 0 without any."
    )
    made: int = Field(description="Renders made within it.")
    completed: int
    failed: int = Field(description="Canceled ones included.")
    frames: int = Field(description="Of the output of those completed.")


class ActivityFigures(Body):
    interval_seconds: int
    intervals: list[ActivityInterval] = Field(description="Oldest first; the last one is not over.")


class ActivityBody(Body):
    model_config = with_example(
        {
            "activity": {
                "intervalSeconds": 900,
                "intervals": [
                    {
                        "endsAt": "2026-11-22T07:45:00.000Z",
                        "unfinished": 3,
                        "oldestSeconds": 128.4,
                        "queued": 2,
                        "oldestQueuedSeconds": 61.7,
                        "made": 12,
                        "completed": 10,
                        "failed": 1,
                        "frames": 12500,
                    }
                ],
            }
        }
    )

    activity: ActivityFigures

    @classmethod
    def of(cls, figures: Activity) -> Self:
        return cls(activity=ActivityFigures.model_validate(figures, from_attributes=True))
