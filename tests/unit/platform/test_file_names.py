import email.message
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.file_names import ascii_name, disposition_parameters, output_name, safe_name
from app.platform.storage.contract import attachment


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'form-data; name="file"; filename="clip.mp4"', "clip.mp4"),
        (b"form-data; name=file; filename=clip.mp4", "clip.mp4"),
        (b'FORM-DATA; NAME="file"; FILENAME="clip.mp4"', "clip.mp4"),
        (b'form-data; filename="clip; name=x.mp4"; name="file"', "clip; name=x.mp4"),
        (rb'form-data; name="file"; filename="a \"quoted\" clip.mp4"', 'a "quoted" clip.mp4'),
        (b'form-data; name="file"; filename="a %22quoted%22 100%25 clip.mp4"', 'a "quoted" 100%25 clip.mp4'),
        ('form-data; name="file"; filename="größe 映画.mp4"'.encode(), "größe 映画.mp4"),
        ('form-data; name="file"; filename="größe.mp4"'.encode("latin-1"), "größe.mp4"),
        (b"form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve%20%E6%98%A0.mp4", "naïve 映.mp4"),
        (b'form-data; name="file"; filename="plain.mp4"; filename*=utf-8\'en\'na%C3%AFve.mp4', "naïve.mp4"),
        (b'form-data; name="file"; filename*=utf-8\'en\'na%C3%AFve.mp4; filename="plain.mp4"', "naïve.mp4"),
        (b'form-data; name="file"; filename*0*=UTF-8\'\'a%C3%A4; filename*1="b.mp4"', "aäb.mp4"),
        (b"form-data; name=\"file\"; filename*=no-such-charset''clip.mp4", "clip.mp4"),
        (b'form-data; name="file"; filename=""', ""),
    ],
)
def test_file_names_as_clients_write_them(header, name):
    assert disposition_parameters(header) == {"name": "file", "filename": name}


@given(st.binary(max_size=300))
def test_any_header_is_understood_or_refused(header):
    try:
        parameters = disposition_parameters(b"form-data; " + header)
    except ValueError:
        return
    assert all(isinstance(value, str) for value in parameters.values())


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\clip.mp4", "clip.mp4"),
        ("/a/b\\c.mp4", "c.mp4"),
        ("a\r\nb\x00\x1b[31m.mp4", "ab[31m.mp4"),
        ("gpj.\u202eclip4pm", "gpj.clip4pm"),
        ("  two   spaces .mp4 ", "two spaces .mp4"),
        ("", "video"),
        (".", "video"),
        ("..", "video"),
        ("a/", "video"),
        ("\ud800", "video"),
        ("e\u0301.mp4", "\u00e9.mp4"),
        ("👩\u200d💻.mp4", "👩\u200d💻.mp4"),
        ("x" * 300 + ".mp4", "x" * 251 + ".mp4"),
        ("x" * 300, "x" * 255),
    ],
)
def test_safe_names(given_name, kept):
    assert safe_name(given_name) == kept


@given(st.text(max_size=400))
def test_every_name_becomes_safe(given_name):
    name = safe_name(given_name)

    assert 1 <= len(name) <= 255
    assert name not in (".", "..")
    assert not set(name) & set("/\\\r\n\x00")
    assert safe_name(name) == name
    name.encode()


@pytest.mark.parametrize(
    ("uploaded", "offered"),
    [
        ("clip.mp4", "clip-4x.mp4"),
        ("holiday.of.2023.mov", "holiday.of.2023-4x.mp4"),
        ("clip", "clip-4x.mp4"),
        ("dr. strange", "dr. strange-4x.mp4"),
        (".mp4", ".mp4-4x.mp4"),
        ("x" * 251 + ".mp4", "x" * 248 + "-4x.mp4"),
    ],
)
def test_output_names(uploaded, offered):
    assert output_name(uploaded, scale=4, suffix=".mp4") == offered


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("holiday (1) [4x].mp4", r"holiday \(1\) \[4x\].mp4"),
        ("видео-4x.mp4", "video-4x-DIGEST.mp4"),
        ("日本語-4x.mp4", "RiBenYu-4x-DIGEST.mp4"),
        ("größe.mov", "grosse-DIGEST.mov"),
        ("😀.mp4", "grinning-DIGEST.mp4"),
        ('a "quoted" clip.mp4', "a _quoted_ clip-DIGEST.mp4"),
        (".mp4-4x.mp4", "mp4-4x-DIGEST.mp4"),
        ("-rf.mp4", "rf-DIGEST.mp4"),
        ("\u200d.mp4", "video-DIGEST.mp4"),
        ("../\r\n\x00", "video-DIGEST"),
        ("x" * 251 + ".mp4", "x" * 189 + "-DIGEST.mp4"),
    ],
)
def test_names_in_ascii(name, plain):
    assert re.fullmatch(plain.replace("DIGEST", "[0-9a-f]{6}"), ascii_name(name))


@given(st.sets(st.text(max_size=300), min_size=2, max_size=8))
def test_names_in_ascii_are_visible_and_distinct(names):
    plain = {ascii_name(name) for name in names}

    assert len(plain) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9 ._()\[\]+,=@~-]{1,200}", name) for name in plain)
    assert not any(name.startswith((".", "-", " ")) for name in plain)


@given(st.text(max_size=300).map(safe_name))
def test_every_name_can_be_offered_for_download(name):
    header = attachment(name)

    assert header.isascii()
    assert not set(header) & set("\r\n")
    message = email.message.Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() == "attachment"
    values = [value for key, value in message.get_params(header="Content-Disposition") if key == "filename"]
    exact = [email.utils.collapse_rfc2231_value(value) for value in values if isinstance(value, tuple)]
    assert (exact or values) == [name]
    assert unicodedata.is_normalized("NFC", name)
