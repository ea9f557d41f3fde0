"""URLs, connection strings and credentials: what the library's client is made with, and what is refused before that."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusSubQueue, TransportType

from tests.adapters.servicebus.stub import StubNamespace
from unimq.address import Queue
from unimq.driver import ConnectOptions, Op, Password, Token
from unimq.errors import AuthenticationFailed, ConnectionFailed, UnimqError
from unimq.url import UrlError, parse
from unimq_servicebus import ServiceBusAdapter

KEYS = "SharedAccessKeyName=root;SharedAccessKey=c2VjcmV0"


def made_with(url: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    stub = StubNamespace()
    adapter = ServiceBusAdapter(client_factory=stub)
    adapter.connect(parse(url), ConnectOptions(**options), lambda event: None).close(1)
    return stub.made_with[0]


@pytest.mark.parametrize("flag", ["true", "True", "TRUE"])
def test_the_emulators_flag_is_honoured_in_any_case(flag: str) -> None:
    text, options = made_with(f"Endpoint=sb://localhost;{KEYS};UseDevelopmentEmulator={flag}")
    assert text.endswith(";UseDevelopmentEmulator=true")
    assert "custom_endpoint_address" not in options
    ServiceBusClient.from_connection_string(text, **options).close()


def test_a_port_with_tls_is_not_dropped() -> None:
    _, options = made_with(f"Endpoint=sb://broker.test:7777;{KEYS}")
    assert options["custom_endpoint_address"] == "sb://broker.test:7777"
    assert options["transport_type"] is TransportType.Amqp


@pytest.mark.parametrize(
    ("url", "word"),
    [
        (f"Endpoint=sb://x.test;{KEYS};EntityPath=orders", "EntityPath"),
        ("sb://root:key@a.test,b.test", "one namespace"),
        ("sb://root:key@a.test/orders", "no path"),
        ("sb://root:key@a.test?wat=1", "wat"),
    ],
)
def test_refused_before_anything(url: str, word: str) -> None:
    with pytest.raises(UrlError, match=word):
        made_with(url)


def test_unknown_native_option_is_refused() -> None:
    with pytest.raises(UrlError, match="retry_total"):
        made_with("sb://root:key@a.test", native={"retry_total": 5})


def test_credentials() -> None:
    with pytest.raises(AuthenticationFailed, match="credential="):
        made_with("sb://mine")

    def credential(**options: Any) -> Any:
        (host, made), _ = made_with("sb://mine", **options)
        assert host == "mine.servicebus.windows.net"
        return made

    assert isinstance(credential(credential=lambda: Password("root", "key")), AzureNamedKeyCredential)
    assert isinstance(credential(credential=lambda: Token("SharedAccessSignature sr=x")), AzureSasCredential)
    asked = credential(credential=lambda: Token("ey.jwt", 2_000_000_000.0))
    assert asked.get_token("scope") == ("ey.jwt", 2_000_000_000)

    class Azure:
        def get_token(self, *scopes: str) -> Any: ...

    given: Any = Azure()
    assert credential(credential=given) is given
    (host, made), _ = made_with("sb://root:p%40ss@a.test")
    assert (host, made.named_key.name, made.named_key.key) == ("a.test", "root", "p@ss")


def test_the_real_client_takes_what_it_is_given() -> None:
    """Making its links does no I/O."""
    from unimq_servicebus import connection, names

    made = connection.ServiceBusConnection(
        parse(f"Endpoint=sb://broker.test;{KEYS}"),
        ConnectOptions(),
        lambda event: None,
        client_factory=ServiceBusClient,
        admin_factory=lambda endpoint, options: None,
    )
    queue = names.queue_entity(Queue("q"))
    assert made._make_sender(queue).entity_name == "q"
    receiver = made._make_receiver(queue, "next")
    assert receiver._session_id is NEXT_AVAILABLE_SESSION
    assert receiver._config.retry_total == 0
    assert receiver._config.timeout == connection.OUTCOME_TIMEOUT_S
    assert made._make_receiver(names.dead_of(queue), None).entity_path.endswith("$DeadLetterQueue")
    assert ServiceBusSubQueue.DEAD_LETTER
    made.close(1)


def test_nobody_listens() -> None:
    adapter = ServiceBusAdapter()
    endpoint = parse("sb://root:key@127.0.0.1:1")
    with pytest.raises(OSError) as caught:
        adapter.connect(endpoint, ConnectOptions(connect_timeout_s=2), lambda event: None)
    fault = adapter.classify(caught.value, op=Op.CONNECT, handed_over=False)
    assert isinstance(fault, ConnectionFailed)
    assert isinstance(fault, UnimqError)
    assert fault.retryable
