"""URLs that users give: every text is either refused with a sentence or can be worked with."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.files.accept_video import url_faults
from app.platform.errors import AddressRefused, InvalidRequest
from app.platform.outbound import NO_HOST, check_url
from app.platform.settings import Settings
from app.webhooks.urls import host_of, parse_webhook_url, require_permitted

LABELS = st.one_of(
    st.sampled_from(
        ["xn--", "xn--a", "xn--0", "XN--", "-", "a" * 64, "%41", "☃", "ß", "\u2488com", "[::1]", "\ud800"]
    ),
    st.from_regex(r"xn--[a-z0-9-]{0,12}", fullmatch=True),
    st.text(max_size=6),
)
URLS = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["http://", "https://", "HTTP://", "http:", "//", "http://user@"]),
        st.lists(LABELS, max_size=3).map(".".join),
        st.one_of(st.just(""), st.integers(-1, 70000).map(":{}".format), st.just(":port")),
        st.one_of(st.just(""), st.text(max_size=10).map("/{}".format), st.text(max_size=4).map("?{}".format)),
    ),
)

TAKES_URLS = Settings(allow_file_urls=True)


@pytest.mark.parametrize(
    "host", ["xn--", "xn--a", "XN--A.example.com", "xn--zzzzzz99999", "xn--ls8h.example"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_label_that_is_not_idna_is_no_host(scheme, host):
    with pytest.raises(AddressRefused, match=NO_HOST):
        check_url(f"{scheme}://{host}/")
    with pytest.raises(InvalidRequest, match=rf"^`url`: {NO_HOST}"):
        parse_webhook_url(f"{scheme}://{host}:9000/hook", field="url")


@pytest.mark.parametrize("host", ["xn--fa-hia.de", "xn--r8jz45g.jp", "faß.de", "例え.jp"])
def test_internationalized_hosts_are_taken(host):
    assert check_url(f"https://{host}/clip.mp4").raw_host.startswith(b"xn--")


@given(URLS)
@example("http://xn--/")
@example("http://a:0/")
def test_every_text_is_refused_or_usable(text):
    assert all(isinstance(fault, str) for fault in url_faults(text, TAKES_URLS))
    try:
        parse_webhook_url(text)
        require_permitted(text, allowed_networks=())
    except InvalidRequest as error:
        assert error.message.startswith("`webhook_url`: ")
    else:
        assert 0 < len(host_of(text)) <= 253
