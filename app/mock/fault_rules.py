"""The schema of a rule of `/_mock/faults`."""

import fnmatch
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.renders.statuses import RenderStatus

LONGEST_LATENCY_SECONDS = 600.0
# A delivery is leased for longer than that: no second attempt begins in between.
LONGEST_WEBHOOK_LATENCY_SECONDS = 30.0
ANYTHING = "*"
WEBHOOK = "WEBHOOK"


class StrictModel(BaseModel):
    """Rejects unknown fields: a misspelt rule would make a test that tests nothing."""

    model_config = ConfigDict(extra="forbid")


class RenderFault(StrictModel):
    """The fault of renders that matching requests create."""

    stuck_in: Literal["queued", "pending", "processing"] | None = Field(
        None, description="The status in which the render stays."
    )
    fail: str | None = Field(None, min_length=1, description="The render fails with this sentence.")
    warnings: list[str] = Field([], description="Warnings of the completed render.")

    def holds(self, status: RenderStatus) -> bool:
        return self.stuck_in == status.value


class Transfer(StrictModel):
    """The transfer of a body: at most so many bytes a second, and with a pause after so many."""

    bytes_per_second: int | None = Field(None, ge=1)
    stall_after_bytes: int | None = Field(None, ge=0)
    stall_seconds: float = Field(60.0, gt=0, le=LONGEST_LATENCY_SECONDS, description="How long the pause is.")

    @model_validator(mode="after")
    def _does_something(self) -> "Transfer":
        if self.bytes_per_second is None and self.stall_after_bytes is None:
            raise ValueError("give bytes_per_second or stall_after_bytes")
        return self


class FaultAction(StrictModel):
    """Delays and slow transfers, and the one other action."""

    latency_seconds: float = Field(
        0.0, ge=0, le=LONGEST_LATENCY_SECONDS, description="Waits before anything is done."
    )
    answer_latency_seconds: float = Field(
        0.0, ge=0, le=LONGEST_LATENCY_SECONDS, description="Waits after the work, before its answer."
    )
    upload: Transfer | None = Field(None, description="How the request's body is received.")
    download: Transfer | None = Field(None, description="How the answer's body is sent.")
    status: int | None = Field(
        None, ge=200, le=599, description="Answers with this status instead of the route."
    )
    body: Any = Field(None, description="JSON or text to answer; default: an error in the usual shape.")
    headers: dict[str, str] = Field({}, description="Headers of that answer.")
    cut: Literal["before", "after", "mid-body"] | None = Field(
        None,
        description="Cuts the connection: before any work is done; after the work, without an answer; or half-way "
        "through the answer.",
    )
    render: RenderFault | None = None
    expired_urls: bool = Field(False, description="The signed URLs in the answer have already expired.")
    webhook: Literal["lost", "doubled", "reordered", "forged", "stale"] | None = Field(
        None,
        description="An event counts as delivered and is never sent; is sent twice; is sent after the next one to "
        "the same address; is signed by another secret; is dated an hour ago and signed accordingly.",
    )

    @model_validator(mode="after")
    def _does_one_thing(self) -> "FaultAction":
        chosen = [self.status is not None, self.cut is not None, self.render is not None]
        chosen += [self.expired_urls, self.webhook is not None]
        if sum(chosen) > 1:
            raise ValueError("give one of status, cut, render, expired_urls and webhook")
        if not any(chosen) and not self.delays:
            raise ValueError("it does nothing")
        if self.status is None and (self.headers or self.body is not None):
            raise ValueError("body and headers belong to a status")
        return self

    @property
    def delays(self) -> bool:
        """Whether it makes a request take longer."""
        return bool(self.latency_seconds or self.answer_latency_seconds or self.upload or self.download)


class FaultRule(StrictModel):
    """When an action is taken. Only the first matching rule applies to a request.

    `route` is a method and a path, `POST /v1/upscale`, each with `*` as a wildcard; `WEBHOOK render.completed` is the
    delivery of that event.
    """

    route: str = Field(ANYTHING, min_length=1, max_length=500)
    times: int | None = Field(None, ge=1, description="How often it applies; default: always.")
    after: int = Field(0, ge=0, description="How many matching requests pass first.")
    probability: float = Field(1.0, gt=0, le=1, description="How likely it applies; drawn from the seed.")
    action: FaultAction

    @model_validator(mode="after")
    def _routes_fit(self) -> "FaultRule":
        action = self.action
        if action.webhook is not None and not (self._names_webhooks or self.route == ANYTHING):
            raise ValueError(f"{action.webhook} belongs to a route that starts with WEBHOOK")
        only = {"latency_seconds", "webhook"}
        if self.is_of_webhooks and action.model_dump(exclude_defaults=True).keys() - only:
            raise ValueError("a route that starts with WEBHOOK may have only webhook and latency_seconds")
        if self.is_of_webhooks and action.latency_seconds > LONGEST_WEBHOOK_LATENCY_SECONDS:
            raise ValueError(
                f"a webhook may be delayed by at most {LONGEST_WEBHOOK_LATENCY_SECONDS:g} seconds"
            )
        return self

    @property
    def is_of_webhooks(self) -> bool:
        return self._names_webhooks or self.action.webhook is not None

    @property
    def _names_webhooks(self) -> bool:
        return self.route.split(" ")[0] == WEBHOOK

    def matches(self, method: str, path: str) -> bool:
        if (method == WEBHOOK) != self.is_of_webhooks:
            return False
        wanted_method, _, wanted_path = self.route.rpartition(" ")
        return fnmatch.fnmatchcase(method, wanted_method.upper() or ANYTHING) and fnmatch.fnmatchcase(
            path, wanted_path
        )
