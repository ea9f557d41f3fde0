"""How a broker is chosen: the order, the pinned lane, what is a skip, what a failure, and what an error."""

from __future__ import annotations

import pytest

from integration import sources
from integration.native import BROKERS, RabbitMQ
from integration.native._process import free_ports
from unimq.testing.containers import RabbitMQContainer


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("UNIMQ_LANE", "UNIMQ_REQUIRE", *(f"UNIMQ_{name.upper()}_URL" for name in BROKERS)):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sources, "_no_daemon", lambda: "no daemon")
    monkeypatch.setattr(RabbitMQ, "available", lambda: "not installed")


def test_every_reason_is_told() -> None:
    with pytest.raises(sources.Unavailable) as caught:
        sources.obtain("rabbitmq")
    assert str(caught.value) == "no rabbitmq: UNIMQ_RABBITMQ_URL is not set; no daemon; not installed"


def test_a_variant_has_its_own_variable_and_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIMQ_RABBITMQ_URL", "amqp://another")
    with pytest.raises(sources.Unavailable) as caught:
        sources.obtain("rabbitmq+tls")
    said = "UNIMQ_RABBITMQ_TLS_URL is not set; a variant comes in no container; not installed"
    assert str(caught.value) == f"no rabbitmq+tls: {said}"


@pytest.mark.parametrize(
    ("lane", "reason"),
    [("url", "UNIMQ_RABBITMQ_URL is not set"), ("docker", "no daemon"), ("native", "not installed")],
)
def test_a_pinned_lane_is_the_only_one(lane: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIMQ_LANE", lane)
    with pytest.raises(sources.Unavailable) as caught:
        sources.obtain("rabbitmq")
    assert str(caught.value) == f"no rabbitmq (UNIMQ_LANE={lane}): {reason}"


def test_a_url_comes_first_and_one_that_nobody_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("UNIMQ_RABBITMQ_URL", f"amqp://guest:marked-secret@127.0.0.1:{port}/")
    with pytest.raises(sources.BrokerError, match="nobody answers") as caught:
        sources.obtain("rabbitmq")
    assert "marked-secret" not in str(caught.value)


def test_an_image_that_is_not_to_be_had_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_no_daemon", lambda: None)
    monkeypatch.setattr(sources, "_no_image", lambda image: f"no {image}")
    with pytest.raises(sources.Unavailable, match=r"no rabbitmq:\d"):
        sources.obtain("rabbitmq")


def test_a_container_that_does_not_come_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(RabbitMQContainer):
        stopped = 0

        def start(self) -> Broken:
            raise TimeoutError("no such line in the log")

        def stop(self) -> None:
            Broken.stopped += 1

    monkeypatch.setattr(sources, "_no_daemon", lambda: None)
    monkeypatch.setattr(sources, "_no_image", lambda _: None)
    monkeypatch.setitem(sources.CONTAINERS, "rabbitmq", Broken)
    with pytest.raises(sources.BrokerError, match="did not come up: no such line"):
        sources.obtain("rabbitmq")
    assert Broken.stopped == 1


@pytest.mark.parametrize(("variable", "value"), [("UNIMQ_LANE", "podman"), ("UNIMQ_REQUIRE", "kafka,rabbit")])
def test_a_wrong_word_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(sources.BrokerError, match=variable):
        (sources.lane if variable == "UNIMQ_LANE" else sources.required)()


def test_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.required() == frozenset()
    monkeypatch.setenv("UNIMQ_REQUIRE", " rabbitmq, kafka,")
    assert sources.required() == {"rabbitmq", "kafka"}
