"""Users, keys and usage as clients see them."""

from app.accounts import schemas as account_schemas
from app.accounts.tables import ApiKey, User
from app.platform.settings import Settings
from app.usage.allowances import Allowance, Limits
from app.usage.service import UsageReport


def user_of(user: User) -> account_schemas.User:
    return account_schemas.User(
        id=user.id,
        name=user.name,
        created_at=user.created_at,
        max_running_segments=user.max_running_segments,
        max_running_renders=user.max_running_renders,
        limits=_limits(Limits.stored(user.limits)),
    )


def key_of(key: ApiKey) -> account_schemas.Key:
    return account_schemas.Key(
        id=key.id,
        user_id=key.user_id,
        name=key.name,
        hint=key.hint,
        scopes=key.scopes,
        limits=_limits(Limits.stored(key.limits)),
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


def usage_body(
    usage: UsageReport, *, user: User, allowance: Allowance, settings: Settings
) -> account_schemas.UsageBody:
    days = [
        account_schemas.UsedOnDay(
            day=used.day,
            engine=used.engine,
            renders=used.renders,
            gigapixels=used.gigapixels,
            cost=used.cost,
        )
        for used in usage.days
    ]
    totals = account_schemas.UsageTotals(
        renders=sum(used.renders for used in usage.days),
        gigapixels=sum(used.gigapixels for used in usage.days),
        cost=sum(used.cost for used in usage.days),
        month_cost=usage.month_cost,
        storage_bytes=usage.stored_bytes,
        queued_renders=usage.queued,
        running_renders=usage.running,
    )
    return account_schemas.UsageBody(
        usage=account_schemas.Usage(
            from_=usage.period.first,
            to=usage.period.last,
            days=days,
            totals=totals,
            limits=_effective_limits(user, allowance, settings),
        )
    )


def _limits(limits: Limits) -> account_schemas.ShownLimits:
    return account_schemas.ShownLimits(**limits.model_dump())


def _effective_limits(
    user: User, allowance: Allowance, settings: Settings
) -> account_schemas.EffectiveLimits:
    media, quota, key_quota = allowance.media, allowance.quota, allowance.key_quota
    rules = [rule for rule in (allowance.requests, allowance.key_requests) if rule is not None]
    return account_schemas.EffectiveLimits(
        requests=";".join(rules) or None,
        max_upload_bytes=allowance.max_upload_bytes,
        max_input_pixels=media.max_input_pixels,
        max_duration_seconds=media.max_duration_seconds,
        max_output_pixels=media.max_output_pixels,
        max_output_frames=media.max_output_frames,
        max_queued_renders=_least(quota.max_queued_renders, key_quota.max_queued_renders),
        max_storage_bytes=_least(quota.max_storage_bytes, key_quota.max_storage_bytes),
        max_cost_per_month=_least(quota.max_cost_per_month, key_quota.max_cost_per_month),
        max_running_segments=user.max_running_segments or settings.max_running_segments_per_user,
        max_running_renders=user.max_running_renders or settings.max_running_renders_per_user,
    )


def _least(one: float | None, other: float | None) -> float | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)
