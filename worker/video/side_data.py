"""The treatment of pictures' side data (captions, stereo, HDR, ...), by ffprobe's names for its kinds."""

from collections.abc import Iterable

DOLBY_VISION_WARNING = "Dolby Vision's metadata was left out; the picture beneath it was upscaled."
DYNAMIC_HDR_WARNING = "HDR10+ metadata, which changes from scene to scene, was left out."
VIVID_WARNING = "HDR Vivid metadata, which changes from scene to scene, was left out."
ADAPTIVE_HDR_WARNING = "HDR metadata by SMPTE 2094-50, which changes from scene to scene, was left out."
STEREO_WARNING = "The tag that says how the pictures hold two views (stereo 3D) was left out."
SPHERICAL_WARNING = "The tag that tells players to show the video as spherical (360 degrees) was left out."
PICTURE_TIMECODE_WARNING = "Timecode inside the pictures was left out."
ACTIVE_FORMAT_WARNING = (
    "Hints about which part of the pictures to show (active format description) were left out."
)
ICC_WARNING = "ICC colour profiles of the pictures were left out."
AMBIENT_WARNING = "The description of the viewing environment was left out."
LAYER_WARNING = "An enhancement layer (LCEVC) was left out; the picture beneath it was upscaled."
HEVC_LAYER_WARNING = "An enhancement layer (of HEVC) was left out; the picture beneath it was upscaled."
RAW_WARNING = "A camera's parameters for its raw pictures were left out."
BOXES_WARNING = "Marks of objects in the pictures were left out."
EXIF_WARNING = "Exif data inside the pictures was left out."
OTHER_WARNING = "Data beside the pictures was left out: {kind}."

CLOSED_CAPTIONS = "closed captions"
# Parts of names, which differ between packets and frames, and between versions of ffmpeg.
LEFT_OUT = {
    "dovi ": DOLBY_VISION_WARNING,
    "dolby vision": DOLBY_VISION_WARNING,
    "2094-40": DYNAMIC_HDR_WARNING,
    "2094-50": ADAPTIVE_HDR_WARNING,
    "cuva": VIVID_WARNING,
    "stereo 3d": STEREO_WARNING,
    "3d reference displays": STEREO_WARNING,
    "view id": STEREO_WARNING,
    "view position": STEREO_WARNING,
    "spherical": SPHERICAL_WARNING,
    "12-1": PICTURE_TIMECODE_WARNING,
    "active format": ACTIVE_FORMAT_WARNING,
    "icc profile": ICC_WARNING,
    "ambient viewing": AMBIENT_WARNING,
    "lcevc": LAYER_WARNING,
    "enhancement-layer": HEVC_LAYER_WARNING,
    "raw camera": RAW_WARNING,
    "bounding boxes": BOXES_WARNING,
    "exif": EXIF_WARNING,
}
# Boxes of a video's description in MP4 that hold such kinds, for not every version of ffmpeg reads all of them.
KINDS_OF_BOXES = {
    b"st3d": "Stereo 3D",
    b"vexu": "Stereo 3D",
    b"sv3d": "Spherical Mapping",
    b"amve": "Ambient viewing environment",
    b"dvwC": "DOVI configuration record",
}
# Carried on or applied (sizes, turns, HDR10, captions, skipped samples, film grain, transparency), part of a copied
# sound or subtitle track, or of no use but to the input's own decoder.
NOT_LOST = (
    *(
        CLOSED_CAPTIONS,
        "display matrix",
        "displaymatrix",
        "frame cropping",
        "mastering display",
        "content light level",
        "skip samples",
    ),
    *(
        "film grain",
        "blockadditional",
        "palette",
        "new extradata",
        "param change",
        "mb info",
        "quality stats",
    ),
    *(
        "fallback track",
        "cpb properties",
        "metadata update",
        "strings metadata",
        "mpegts stream id",
        "encryption",
    ),
    *(
        "producer reference time",
        "rtcp",
        "motion vectors",
        "gop timecode",
        "regions of interest",
        "video hint",
    ),
    *(
        "video encoding parameters",
        "user data unregistered",
        "panscan",
        "replay gain",
        "replaygain",
        "jp dual mono",
    ),
    *("audio service type", "matrixencoding", "downmix", "subtitle position", "webvtt", "iamf"),
)


def lost_side_data(kinds: Iterable[str]) -> list[str]:
    """A warning for each of these kinds that the output does not keep. HDR10's are told apart from this."""
    warnings: dict[str, None] = {}
    for kind in sorted(kinds):
        name = kind.lower()
        told = next((warning for part, warning in LEFT_OUT.items() if part in name), None)
        if told is None and not any(part in name for part in NOT_LOST):
            told = OTHER_WARNING.format(kind=kind)
        if told is not None:
            warnings[told] = None
    return list(warnings)
