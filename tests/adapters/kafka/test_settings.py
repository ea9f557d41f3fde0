"""URL and options → librdkafka's settings; what cannot be done is refused before any I/O."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from unimq.driver import ConnectOptions, Password, SenderOptions, Token
from unimq.errors import Unsupported
from unimq.url import UrlError, parse
from unimq_kafka import ADAPTER, settings


def refuse(url: str, **options: Any) -> None:
    ADAPTER.connect(parse(url), ConnectOptions(**options), lambda event: None)


def common(url: str, secret: Password | Token | None = None, **native: Any) -> dict[str, Any]:
    return settings.common(parse(url), ConnectOptions(native=native), secret)


def test_hosts_and_login() -> None:
    base = common("kafkas://me:pw@h1,h2:9093,[::2]:9094?ca=/ca.pem&mechanism=SCRAM-SHA-256&verify=false")
    assert base["bootstrap.servers"] == "h1:9092,h2:9093,[::2]:9094"
    assert base["security.protocol"] == "SASL_SSL"
    assert (base["sasl.mechanism"], base["sasl.username"], base["sasl.password"]) == (
        "SCRAM-SHA-256",
        "me",
        "pw",
    )
    assert base["ssl.ca.location"] == "/ca.pem"
    assert base["enable.ssl.certificate.verification"] is False
    assert common("kafka://h")["security.protocol"] == "PLAINTEXT"
    assert common("kafka://h", Token("t"))["sasl.mechanism"] == "OAUTHBEARER"


def test_topics_are_never_made_by_asking() -> None:
    base = common("kafka://h")
    for made in (
        settings.producer(base, {}, SenderOptions()),
        settings.consumer(base, {}, parse("kafka://h"), "g", 1 << 20),
    ):
        assert made["allow.auto.create.topics"] is False


def test_native_goes_where_it_says() -> None:
    native = {"client.rack": "r", "producer": {"linger.ms": 1}, "consumer": {"fetch.min.bytes": 2}}
    base = common("kafka://h", **native)
    assert base["client.rack"] == "r"
    assert settings.producer(base, native, SenderOptions())["linger.ms"] == 1
    consumer = settings.consumer(base, native, parse("kafka://h"), "g", 1 << 20)
    assert consumer["fetch.min.bytes"] == 2
    assert "linger.ms" not in consumer


def test_the_group_protocol_sets_the_assignor() -> None:
    base = common("kafka://h")
    classic = settings.consumer(base, {}, parse("kafka://h"), "g", 1)
    modern = settings.consumer(base, {}, parse("kafka://h?group_protocol=consumer"), "g", 1)
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"
    assert "partition.assignment.strategy" not in modern
    assert settings.is_incremental(classic)
    assert settings.is_incremental(modern)
    assert not settings.is_incremental({"partition.assignment.strategy": "range"})


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("kafka://", UrlError),
        ("kafka://h/path", UrlError),
        ("kafka://h?vhost=x", UrlError),
        ("kafka://h?max_message_bytes=many", UrlError),
        ("kafka://h?verify=perhaps", UrlError),
        ("eventhubs://h", Unsupported),
    ],
)
def test_bad_urls(url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        refuse(url)


def test_what_our_promises_stand_on_cannot_be_overridden() -> None:
    for native in ({"enable.auto.commit": True}, {"producer": {"acks": 1}}, {"consumer": {"group.id": "x"}}):
        with pytest.raises(Unsupported):
            refuse("kafka://h", native=native)
    with pytest.raises(Unsupported):
        refuse("kafka://h", tls=ssl.create_default_context())


def test_a_credential_is_callable() -> None:
    class Azure:
        def get_token(self, *scopes: str) -> object:
            raise AssertionError("asked before any check")

    with pytest.raises(Unsupported, match="Azure"):
        refuse("kafka://h", credential=Azure())
