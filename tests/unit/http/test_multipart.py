import hashlib
import itertools
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.http.multipart import MultipartReceiver, ReceivedForm
from app.http.spool_space import FORM_BYTES
from app.platform.errors import InvalidRequest, LimitExceeded, Unavailable

TEXT_FIELDS = frozenset({"engine", "target_fps", "file_id"})
LIMIT = 3 * 1024**2


@pytest.fixture(scope="module")
def spool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(autouse=True)
def nothing_is_left(spool_dir: Path):
    yield
    assert list(spool_dir.iterdir()) == []


def part(name: str | bytes, content: bytes, file_name: str | None = None) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    header = b'Content-Disposition: form-data; name="' + raw + b'"'
    if file_name is not None:
        header += b'; filename="' + file_name.encode() + b'"\r\nContent-Type: video/mp4'
    return b"--BOUNDARY\r\n" + header + b"\r\n\r\n" + content + b"\r\n"


END = b"--BOUNDARY--\r\n"


def receive(spool_dir: Path, *blocks: bytes) -> tuple[ReceivedForm, bytes | None]:
    """The form, and the content of its upload."""
    receiver = MultipartReceiver(
        boundary=b"BOUNDARY", spool_dir=spool_dir, max_file_bytes=LIMIT, text_fields=TEXT_FIELDS
    )
    try:
        for block in blocks:
            receiver.feed(block)
        form = receiver.finish()
        return form, form.upload.path.read_bytes() if form.upload else None
    finally:
        receiver.discard()


# Content full of what looks like the boundary, or its beginning.
tricky_content = (
    st.lists(
        st.sampled_from(
            [
                b"\r",
                b"\n",
                b"\r\n",
                b"-",
                b"--",
                b"\r\n--",
                b"--BOUND",
                b"\r\n--BOUNDAR",
                b"BOUNDARY",
                b"\r\n--BOUNDARX",
            ]
        )
        | st.binary(max_size=20),
        max_size=12,
    )
    .map(b"".join)
    .filter(lambda content: b"\r\n--BOUNDARY" not in content)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    content=tricky_content,
    order=st.permutations(["file", "engine", "file_id", "other"]),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=40),
    single_bytes=st.booleans(),
)
def test_however_the_body_is_cut_and_its_fields_are_ordered(spool_dir, content, order, cuts, single_bytes):
    parts = {
        "file": part("file", content, "clip.mp4"),
        "engine": part("engine", b"regen-4x"),
        "file_id": part("file_id", "ü\r\n".encode()),
        "other": part("other", b"\r\n--BOUNDAR" * 3),
    }
    body = b"".join(parts[name] for name in order) + END
    edges = (
        range(len(body) + 1)
        if single_bytes
        else sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    )
    blocks = [body[start:end] for start, end in itertools.pairwise(edges)]

    form, received = receive(spool_dir, *blocks)

    assert received == content
    assert form.upload is not None
    assert form.upload.size_bytes == len(content)
    assert form.upload.sha256 == hashlib.sha256(content).hexdigest()
    assert form.upload.name == "clip.mp4"
    assert form.fields == {"engine": "regen-4x", "file_id": "ü\r\n"}
    assert form.faults == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [part("file", b"x", "a"), part("engine", b"x"), END, b"--BOUNDARY", b"\r\n", b'"', b";", b":"]
        )
        | st.binary(max_size=20),
        max_size=12,
    )
)
def test_no_body_breaks_it(spool_dir, pieces):
    """Whatever comes: a form, or an answer for the client."""
    try:
        form, _content = receive(spool_dir, *pieces)
    except InvalidRequest as error:
        assert error.messages
    else:
        assert END.strip() in b"".join(pieces)
        assert set(form.fields) <= TEXT_FIELDS


def test_what_comes_before_and_after_the_parts_is_ignored(spool_dir):
    form, _content = receive(spool_dir, b"\r\n" + part("engine", b"a") + END + b"epilogue")

    assert form.fields == {"engine": "a"}


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a multi-part message in MIME format.\r\n",
        b"not the boundary: --BOUNDARY\r\n--BOUNDAR\r\n\r\n",
        b"--BOUND\r\n" * 1000,
    ],
)
@pytest.mark.parametrize("single_bytes", [False, True])
def test_a_preamble_is_ignored(spool_dir, preamble, single_bytes):
    """RFC 2046, section 5.1.1."""
    body = preamble + part("engine", b"a") + END
    blocks = [body[at : at + 1] for at in range(len(body))] if single_bytes else [body]

    form, _content = receive(spool_dir, *blocks)

    assert form.fields == {"engine": "a"}


def test_an_endless_preamble_is_a_limit(spool_dir):
    with pytest.raises(LimitExceeded):
        receive(spool_dir, *[b"x" * 65536] * (FORM_BYTES // 65536 + 1))


def test_the_end_must_come(spool_dir):
    whole = part("file", b"content", "a.mp4") + END
    for length in range(len(whole) - 4):
        with pytest.raises(InvalidRequest):
            receive(spool_dir, whole[:length])


def test_faults_of_fields_are_collected(spool_dir):
    form, _content = receive(
        spool_dir,
        part("engine", b"a")
        + part("engine", b"b")
        + part("file_id", b"x" * 4097)
        + part("target_fps", b"\xff")
        + END,
    )

    assert form.faults == {
        "engine": "`engine` is given more than once.",
        "file_id": "`file_id` is longer than 4096 bytes.",
        "target_fps": "`target_fps` is not valid UTF-8 text.",
    }


def test_a_second_file_is_refused_with_the_faults_before_it(spool_dir):
    with pytest.raises(InvalidRequest) as error:
        receive(
            spool_dir, part("target_fps", b"\xff") + part("file", b"a", "a") + part("file", b"b", "b") + END
        )

    assert error.value.messages == (
        "`target_fps` is not valid UTF-8 text.",
        "`file` is given more than once.",
    )


def test_the_limit_on_the_file(spool_dir):
    form, _content = receive(spool_dir, part("file", b"x" * LIMIT, "a") + END)
    assert form.upload is not None
    assert form.upload.size_bytes == LIMIT

    with pytest.raises(LimitExceeded, match=r"larger than the limit of 3 MiB\."):
        receive(spool_dir, part("file", b"x" * (LIMIT + 1), "a") + END)


def test_the_limit_on_everything_else(spool_dir):
    with pytest.raises(LimitExceeded):
        receive(spool_dir, part("other", b"x" * FORM_BYTES) + END)
    with pytest.raises(LimitExceeded):
        receive(spool_dir, part("engine", b"x") + END, b"epilogue" * FORM_BYTES)


def test_the_limit_on_parts(spool_dir):
    form, _content = receive(spool_dir, part("other", b"") * 63 + part("engine", b"a") + END)
    assert form.fields == {"engine": "a"}

    with pytest.raises(InvalidRequest, match="more than 64 parts"):
        receive(spool_dir, part("other", b"") * 65 + END)


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Disposition: form-data",
        b"Content-Type: text/plain",
        b'Content-Disposition: form-data; filename="a"',
        b'Content-Disposition: form-data; name="file"\x00; filename="a"',
        b'Content-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: quoted-printable',
        b"Content Disposition: form-data",
        b": empty",
    ],
)
def test_parts_that_cannot_be_understood(spool_dir, header):
    with pytest.raises(InvalidRequest):
        receive(spool_dir, b"--BOUNDARY\r\n" + header + b"\r\n\r\nabc\r\n" + END)


def test_a_spool_file_is_private(spool_dir):
    receiver = MultipartReceiver(
        boundary=b"BOUNDARY", spool_dir=spool_dir, max_file_bytes=LIMIT, text_fields=TEXT_FIELDS
    )
    receiver.feed(part("file", b"abc", "a"))
    (path,) = spool_dir.iterdir()

    assert path.stat().st_mode & 0o777 == 0o600
    receiver.discard()


def test_no_room_on_the_disk(spool_dir):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 1024**2, hard))
    try:
        with pytest.raises(Unavailable) as error:
            receive(spool_dir, part("file", b"x" * LIMIT, "a") + END)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert error.value.retry_after_seconds > 0
