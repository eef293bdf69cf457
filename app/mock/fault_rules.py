"""The schema of a rule of `/_mock/faults`."""

import fnmatch
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.renders.statuses import RenderStatus

LONGEST_LATENCY_SECONDS = 600.0
ANYTHING = "*"
WEBHOOK = "WEBHOOK"


class StrictModel(BaseModel):
    """Rejects unknown fields: a misspelt rule would make a test that tests nothing."""

    model_config = ConfigDict(extra="forbid")


class RenderFault(StrictModel):
    """The fault of renders that matching requests create."""

    stuck_in: Literal["queued", "pending", "processing"] | None = Field(
        None, description="The status that the render never leaves."
    )
    fail: str | None = Field(None, min_length=1, description="The render fails with this sentence.")
    warnings: list[str] = Field([], description="Sentences that the completed render carries.")

    def holds(self, status: RenderStatus) -> bool:
        return self.stuck_in == status.value


class FaultAction(StrictModel):
    """The delay comes first, then the one other action."""

    latency_seconds: float = Field(0.0, ge=0, le=LONGEST_LATENCY_SECONDS)
    status: int | None = Field(None, ge=200, le=599, description="Answers this status instead of the route.")
    body: Any = Field(None, description="JSON or text to answer; left out, an error in the usual shape.")
    headers: dict[str, str] = Field({}, description="Headers of that answer.")
    cut: Literal["before", "after", "mid-body"] | None = Field(
        None,
        description="Cuts the connection: before anything is done; after it was done, without an answer; or half-way "
        "through the answer.",
    )
    render: RenderFault | None = None
    expired_urls: bool = Field(False, description="The signed URLs in the answer have expired already.")
    webhook: Literal["lost", "doubled"] | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> "FaultAction":
        chosen = [self.status is not None, self.cut is not None, self.render is not None]
        chosen += [self.expired_urls, self.webhook is not None]
        if sum(chosen) > 1:
            raise ValueError("give one of status, cut, render, expired_urls and webhook")
        if not any(chosen) and not self.latency_seconds:
            raise ValueError("it does nothing")
        if self.status is None and (self.headers or self.body is not None):
            raise ValueError("body and headers belong to a status")
        return self


class FaultRule(StrictModel):
    """When an action is taken. The first rule that applies to a request is applied; later ones do not see it.

    `route` is a method and a path, `POST /v1/upscale`, each with `*` as a wildcard; `WEBHOOK render.completed` is the
    delivery of that event.
    """

    route: str = Field(ANYTHING, min_length=1, max_length=500)
    times: int | None = Field(None, ge=1, description="How often it applies; always when left out.")
    after: int = Field(0, ge=0, description="How many matching requests pass before.")
    probability: float = Field(1.0, gt=0, le=1, description="How likely it applies; drawn from the seed.")
    action: FaultAction

    @model_validator(mode="after")
    def _routes_fit(self) -> "FaultRule":
        of_webhooks = self.route.split(" ")[0] == WEBHOOK
        if (self.action.webhook is not None) != of_webhooks and self.route != ANYTHING:
            raise ValueError(
                "lost and doubled belong to a route that starts with WEBHOOK, and nothing else does"
            )
        return self

    @property
    def is_of_webhooks(self) -> bool:
        return self.action.webhook is not None

    def matches(self, method: str, path: str) -> bool:
        if (method == WEBHOOK) != self.is_of_webhooks:
            return False
        wanted_method, _, wanted_path = self.route.rpartition(" ")
        return fnmatch.fnmatchcase(method, wanted_method.upper() or ANYTHING) and fnmatch.fnmatchcase(
            path, wanted_path
        )
