"""The upscaler in a worker's memory: made for one engine and one shape of video, kept while the next segment fits."""

from app.core.settings import Settings
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler, make_upscaler


class Networks:
    """Holds one upscaler: a device's memory is for one network at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made_for: tuple[str, FrameFormat, FrameFormat] | None = None
        self._upscaler: Upscaler | None = None

    def upscaler(self, *, engine_id: str, source: FrameFormat, target: FrameFormat) -> Upscaler:
        """Raises the errors of `models.weights` and `worker.inference` when weights or device are missing."""
        wanted = (engine_id, source, target)
        if self._upscaler is None or self._made_for != wanted:
            self._upscaler = None  # freed before the next is made
            self._upscaler = make_upscaler(
                engine_id=engine_id,
                source=source,
                target=target,
                weights_directory=self._settings.weights_dir,
                device=self._settings.device,
                precision=self._settings.precision,
                stand_in=self._settings.stand_in_network,
            )
            self._made_for = wanted
        return self._upscaler
