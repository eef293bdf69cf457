"""Previews as clients see them."""

from datetime import timedelta

from app.http.resources import Resources
from app.platform.file_names import output_name
from app.previews import schemas as preview_schemas
from app.previews.service import KEPT_SECONDS, crop_of
from app.previews.tables import Preview
from app.renders.options import find_engine
from app.renders.statuses import RenderStatus


def preview_body(preview: Preview, *, resources: Resources, base_url: str) -> preview_schemas.PreviewBody:
    return preview_schemas.PreviewBody(preview=preview_of(preview, resources=resources, base_url=base_url))


def preview_of(preview: Preview, *, resources: Resources, base_url: str) -> preview_schemas.Preview:
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

    return preview_schemas.Preview(
        id=preview.id,
        status=preview.status.value,
        created_at=preview.created_at,
        expires_at=preview.created_at + timedelta(seconds=KEPT_SECONDS),
        file_id=preview.file_id,
        engine=preview.engine,
        at_seconds=preview.at_seconds,
        crop=None
        if crop is None
        else preview_schemas.Crop(x=crop.x, y=crop.y, width=crop.width, height=crop.height),
        whole_frame=crop is None if completed else None if crop is None else False,
        before_url=signed(preview.before_key, scale=1),
        after_url=signed(preview.after_key, scale=find_engine(preview.engine).scale),
        error=preview.error if preview.status is RenderStatus.FAILED else None,
        warnings=preview.warnings or None,
    )
