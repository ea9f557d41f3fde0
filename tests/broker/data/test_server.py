"""The server with a data directory: nothing is answered before it is durable, and a disk that fails ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pika
import pytest

from unimq import broker
from unimq.broker import command, peer
from unimq.broker.data import DataError, Store
from unimq.broker.server import Broker

PERSISTENT = pika.BasicProperties(delivery_mode=2)
WAIT_MAX_S = 20.0


def connected(running: Broker) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(running.urls["amqp"]))


def ready(running: Broker, name: str = "q") -> int:
    with connected(running) as connection:
        return int(connection.channel().queue_declare(name, passive=True).method.message_count)


def fill(running: Broker, count: int = 3) -> None:
    with connected(running) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        for n in range(count):
            channel.basic_publish("", "q", b"%d" % n, PERSISTENT)
        channel.basic_publish("", "q", b"transient")


def test_one_broker_after_another(tmp_path: Path) -> None:
    with broker.run(amqp=0, data=tmp_path) as first:
        fill(first)
        assert ready(first) == 4
    with broker.run(amqp=0, data=str(tmp_path)) as second:
        assert ready(second) == 3


def test_restart_in_the_process_and_after_it(tmp_path: Path) -> None:
    with broker.run(amqp=0, data=tmp_path) as first:
        fill(first)
        first.restart()
        assert ready(first) == 3
        fill(first)
        first.restart()
    with broker.run(amqp=0, data=tmp_path) as second:
        assert ready(second) == 6


def test_time_that_was_moved_by_hand_stays_moved(tmp_path: Path) -> None:
    with broker.run(amqp=0, data=tmp_path) as first:
        with connected(first) as connection:
            channel = connection.channel()
            channel.queue_declare("q", durable=True)
            for expiration in ("60000", "90000"):
                channel.basic_publish(
                    "", "q", b"m", pika.BasicProperties(delivery_mode=2, expiration=expiration)
                )
        first.clock.advance(61)
        assert ready(first) == 1
        began_s = first.clock.now()
    with broker.run(amqp=0, data=tmp_path) as second:
        assert 0 <= second.clock.now() - began_s < WAIT_MAX_S
        assert ready(second) == 1
        second.clock.advance(30)
        assert ready(second) == 0


def test_a_transaction_is_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the turns of a server, its file holds all of a transaction or nothing."""
    seen: set[tuple[int, int]] = set()
    commit = Store.commit

    def watched(store: Store) -> None:
        commit(store)
        found = store.connection.execute("SELECT id >> 40, count(*) FROM messages GROUP BY 1").fetchall()
        seen.add((dict(found).get(1, 0), dict(found).get(2, 0)))

    monkeypatch.setattr(Store, "commit", watched)
    with broker.run(amqp=0, data=tmp_path) as running, connected(running) as connection:
        channel = connection.channel()
        for name in ("from", "to"):
            channel.queue_declare(name, durable=True)
        channel.basic_publish("", "from", b"m", PERSISTENT)
        channel.tx_select()
        frame, _, body = channel.basic_get("from")
        for _ in range(3):
            channel.basic_publish("", "to", body, PERSISTENT)
        channel.basic_ack(frame.delivery_tag)
        channel.tx_commit()
    assert seen == {(0, 0), (1, 0), (0, 3)}


def test_what_is_confirmed_is_committed_also_by_a_connection_that_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written to a socket, nothing that happened before is still uncommitted."""
    uncommitted: list[bool] = []
    write_out = peer.Peer.write_out

    def watched(self: Any) -> None:
        store = self._broker.store
        uncommitted.append(bool(store.new or store.changed or store.gone))
        write_out(self)

    monkeypatch.setattr(peer.Peer, "write_out", watched)
    with broker.run(amqp=0, data=tmp_path) as running:
        fill(running)
        with connected(running) as connection:
            channel = connection.channel()
            for _ in range(3):
                channel.basic_publish("", "q", b"m", PERSISTENT)
            for _ in range(5):
                channel.basic_get("q", auto_ack=True)
            channel.basic_publish("", "q", b"last", PERSISTENT)
    assert uncommitted and not any(uncommitted)


def test_a_disk_that_fails_ends_the_broker_and_confirms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker.run(amqp=0, data=tmp_path) as running:
        fill(running)
        with connected(running) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            assert running.store is not None
            limit = "PRAGMA max_page_count = 1"
            running.call(lambda: running.store.connection.execute(limit).fetchall())  # type: ignore[union-attr]
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                channel.basic_publish("", "q", b"x" * 100_000, PERSISTENT)
        assert running.stopped.wait(WAIT_MAX_S)
        assert "cannot be used" in str(running.failure)
    with broker.run(amqp=0, data=tmp_path) as again:
        assert ready(again) == 3


def test_the_process_says_why_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = Broker.start

    def broken(self: Broker) -> Broker:
        started(self)

        def fail() -> None:
            def commit() -> None:
                raise DataError("the data directory d cannot be used: disk I/O error")

            assert self.store is not None
            monkeypatch.setattr(self.store, "commit", commit)

        self.call(fail)
        return self

    monkeypatch.setattr(Broker, "start", broken)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert command.main(["--amqp", "0", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "unimq broker: the data directory d cannot be used: disk I/O error\n"


def test_without_a_data_directory_sqlite_is_not_loaded() -> None:
    probe = (
        "import sys; from unimq import broker; broker.run(amqp=0).close(); print('sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=WAIT_MAX_S)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
