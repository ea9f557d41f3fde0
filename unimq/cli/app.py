"""The commands. Each opens one client, does one thing, and says what it did."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import unimq
from unimq import Address, Client, Delivery, Message, Queue, Subscription, Topic, UnimqError

app: typer.Typer = typer.Typer(
    no_args_is_help=True, add_completion=False, help="One API for message brokers."
)
console = Console()

Where = Annotated[
    str, typer.Argument(help="queue:NAME, topic:NAME or subscription:TOPIC/NAME", metavar="ADDRESS")
]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="UNIMQ_URL", show_envvar=True, help="The broker.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
NOTHING_THERE = 3


@contextmanager
def client(url: str | None) -> Iterator[Client]:
    try:
        with unimq.connect(url) as mq:
            yield mq
    except UnimqError as error:
        _fail(str(error))


def _fail(text: str) -> None:
    print(f"unimq: {text}", file=sys.stderr)
    raise typer.Exit(1)


def _address(text: str) -> Queue | Topic | Subscription:
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(address, Queue | Topic | Subscription)
    return address


def _source(text: str) -> Queue | Subscription:
    address = _address(text)
    if isinstance(address, Topic):
        raise typer.BadParameter("a topic is only sent to: name a queue or a subscription")
    return address


def _target(text: str) -> Queue | Topic:
    address = _address(text)
    if isinstance(address, Subscription):
        raise typer.BadParameter("a subscription is only read: name a queue or a topic")
    return address


def _shown(delivery: Delivery) -> dict[str, Any]:
    body = delivery.body
    try:
        text = None if body is None else body.decode()
    except UnicodeDecodeError:
        text = repr(body)
    return {
        "message_id": delivery.message_id,
        "key": delivery.key if not isinstance(delivery.key, bytes) else repr(delivery.key),
        "subject": delivery.subject,
        "headers": {
            name: value if not isinstance(value, bytes) else repr(value)
            for name, value in delivery.headers.items()
        },
        "body": text,
    }


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, default=str))
    else:
        console.print(
            " ".join(f"[bold]{name}[/]={value!r}" for name, value in document.items() if value),
            highlight=False,
        )


@app.command()
def send(
    address: Where,
    body: Annotated[str, typer.Argument(help="The body; - reads standard input.")],
    url: Url = None,
    key: str | None = None,
    subject: str | None = None,
    content_type: str | None = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="NAME=VALUE")] = None,
    declare: Annotated[bool, typer.Option("--declare", help="Make the place first.")] = False,
) -> None:
    """Send one message and wait for its confirmation."""
    headers = dict(pair.partition("=")[::2] for pair in header or [])
    data = sys.stdin.buffer.read() if body == "-" else body.encode()
    target = _target(address)
    with client(url) as mq:
        if declare:
            mq.declare(target)
        message = Message(data, key=key, subject=subject, content_type=content_type, headers=headers)
        print(mq.send(target, message).message_id)


@app.command()
def receive(
    address: Where,
    url: Url = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1)] = 1,
    timeout_s: float = 5.0,
    as_json: Json = False,
    keep: Annotated[bool, typer.Option("--keep", help="Hand them back instead of settling them.")] = False,
) -> None:
    """Receive and settle messages."""
    source = _source(address)
    left = count
    with client(url) as mq, mq.receiver(source, prefetch=min(count, 100)) as receiver:
        while left:
            batch = receiver.receive(left, timeout_s)
            if not batch:
                break
            for delivery in batch:
                _print(_shown(delivery), as_json)
                delivery.release() if keep else delivery.ack()
            left -= len(batch)
        receiver.flush()
    if left == count:
        raise typer.Exit(NOTHING_THERE)


@app.command()
def browse(address: Where, url: Url = None, limit: int = 20, as_json: Json = False) -> None:
    """Look at waiting messages without taking them."""
    with client(url) as mq:
        for delivery in mq.browse(_source(address), limit):
            _print(_shown(delivery), as_json)


@app.command()
def stats(address: Where, url: Url = None, as_json: Json = False) -> None:
    """Numbers about a place; ? where the broker does not tell."""
    with client(url) as mq:
        found = mq.stats(_address(address))
    numbers = {
        name: getattr(found, name) for name in ("depth", "in_flight", "delayed", "dead", "lag", "consumers")
    }
    if as_json:
        print(json.dumps(numbers))
        return
    table = Table(*numbers)
    table.add_row(*("?" if value is None else str(value) for value in numbers.values()))
    console.print(table)


@app.command()
def declare(address: Where, url: Url = None) -> None:
    """Make a place if it is not there."""
    with client(url) as mq:
        report = mq.declare(_address(address))
    for place in report.created:
        print(f"created {place}")
    for place in report.existing:
        print(f"there   {place}")


@app.command()
def purge(address: Where, url: Url = None, yes: Yes = False) -> None:
    """Remove everything that waits in a place. Asks first."""
    source = _source(address)
    with client(url) as mq:
        if not yes:
            typer.confirm(f"Remove all messages of {source}?", abort=True)
        gone = mq.purge(source)
    print(f"removed {'?' if gone is None else gone}")


@app.command()
def explain(
    address: Annotated[str | None, typer.Argument(metavar="[ADDRESS]")] = None,
    url: Url = None,
    connect: Annotated[bool, typer.Option("--connect/--no-connect")] = True,
) -> None:
    """What the broker makes of the promises, and where messages go."""
    if not url:
        raise typer.BadParameter("no URL: --url, or UNIMQ_URL")
    try:
        print(unimq.explain(url, _address(address) if address else None, connect=connect))
    except UnimqError as error:
        _fail(str(error))


# at the end: they use what is above
from . import dlq as _dlq  # noqa: E402
from .worker import worker as _worker  # noqa: E402

app.command("worker")(_worker)
app.add_typer(_dlq.app, name="dlq")
