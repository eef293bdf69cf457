"""The names under which things lie in storage. What an attempt makes carries the attempt's number, so that a late
result can never overwrite a good one."""


def input_key(file_id: str) -> str:
    return f"files/{file_id}/input"


def segments_prefix(render_id: str) -> str:
    return f"renders/{render_id}/segments/"


def segment_key(render_id: str, *, position: int, attempt: int) -> str:
    return f"{segments_prefix(render_id)}{position:06d}-{attempt}.mp4"


def output_key(render_id: str, *, attempt: int) -> str:
    return f"renders/{render_id}/output-{attempt}.mp4"


def thumbnail_key(render_id: str, *, attempt: int) -> str:
    return f"renders/{render_id}/thumbnail-{attempt}.jpg"
