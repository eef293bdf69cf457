"""Previews as clients see them."""

from datetime import timedelta

from app.api.file_names import output_name
from app.api.resources import Resources
from app.api.schemas import previews
from app.api.views import number, timestamp
from app.core.services.previews import KEPT_SECONDS, crop_of
from app.core.services.render_options import find_engine
from app.core.statuses import RenderStatus
from app.core.tables import Preview


def preview_body(preview: Preview, *, resources: Resources, base_url: str) -> previews.PreviewBody:
    return previews.PreviewBody(preview=preview_of(preview, resources=resources, base_url=base_url))


def preview_of(preview: Preview, *, resources: Resources, base_url: str) -> previews.Preview:
    """The preview with URLs signed now. They do not outlast it by more than the clean-up takes."""
    completed = preview.status is RenderStatus.COMPLETED
    crop = crop_of(preview)

    def signed(key: str | None, *, scale: int) -> str | None:
        if key is None or not completed:
            return None
        suffix = "." + key.rpartition(".")[2]
        return resources.storage.signed_url(
            key,
            base_url=base_url,
            file_name=output_name(preview.file.name, scale=scale, suffix=suffix),
            lifetime_seconds=min(resources.settings.url_lifetime_seconds, KEPT_SECONDS),
        )

    return previews.Preview(
        id=preview.id,
        status=preview.status.value,
        created_at=timestamp(preview.created_at),
        expires_at=timestamp(preview.created_at + timedelta(seconds=KEPT_SECONDS)),
        file_id=preview.file_id,
        engine=preview.engine,
        at_seconds=number(preview.at_seconds),
        crop=None
        if crop is None
        else previews.Crop(x=crop.x, y=crop.y, width=crop.width, height=crop.height),
        whole_frame=crop is None if completed else None if crop is None else False,
        before_url=signed(preview.before_key, scale=1),
        after_url=signed(preview.after_key, scale=find_engine(preview.engine).scale),
        error=preview.error if preview.status is RenderStatus.FAILED else None,
        warnings=preview.warnings or None,
    )
