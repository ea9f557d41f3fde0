"""URLs: read once, refused by the part that is wrong, never showing a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unimq
from unimq.url import UrlError, check_options, parse, scheme_of


def test_the_parts() -> None:
    endpoint = parse("amqp://us%40er:p%2Fw@h1:1,h2,[fe80::7]:1/a%2Fb?x=1&y=%20")
    assert endpoint.scheme == "amqp"
    assert endpoint.hosts == (("h1", 1), ("h2", None), ("fe80::7", 1))
    assert (endpoint.user, endpoint.password, endpoint.path) == ("us@er", "p/w", "a%2Fb")
    assert endpoint.options == {"x": "1", "y": " "}
    assert str(endpoint) == "amqp://us@er:***@h1:1,h2,[fe80::7]:1/a%2Fb"
    assert "p/w" not in repr(endpoint)


def test_a_path_that_is_there_differs_from_none() -> None:
    assert parse("amqp://h").path is None
    assert parse("amqp://h/").path == ""
    assert parse("amqp://h//").path == "/"


def test_a_connection_string() -> None:
    endpoint = parse(
        "Endpoint=sb://ns.example:5/;SharedAccessKeyName=n;SharedAccessKey=a/b==;UseDevelopmentEmulator=true"
    )
    assert endpoint.scheme == scheme_of("Endpoint=sb://x") == "sb"
    assert endpoint.hosts == (("ns.example", 5),)
    assert endpoint.parts["sharedaccesskey"] == "a/b=="
    assert "a/b" not in repr(endpoint)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "amqp:/x",
        "amqp://h:port",
        "amqp://h:0",
        "amqp://h:65536",
        "amqp://a,,b",
        "amqp://[::1",
        "amqp://h?a=1&a=2",
        "amqp://u:p@ss@h",
        "amqp://u:p/w@h",
        "amqp://u:p?w@h",
        None,
        5,
    ],
)
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(UrlError) as refused:
        parse(url)
    assert refused.value.code == "invalid-url"


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(UrlError, match="'colour'"):
        check_options(parse("amqp://h?colour=red"), frozenset({"size"}))


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(unimq.AdapterMissing, match="memory"):
        unimq.connect("carrier-pigeon://roof")


def test_no_url_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIMQ_URL", raising=False)
    with pytest.raises(UrlError, match="UNIMQ_URL"):
        unimq.connect()


@given(st.text(max_size=200))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except UrlError:
        return
