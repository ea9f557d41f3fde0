"""A data directory that cannot be used is refused at the start, in one sentence, and is left as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.broker.engine.amqp_kit import queue, send
from unimq import broker
from unimq.broker import command
from unimq.broker.data import DataError, Store
from unimq.broker.data.directory import FILE, VERSION

from .kit import Life


def filled(directory: Path) -> Path:
    life = Life(directory)
    queue(life.vhost, "q", durable=True)
    for n in range(200):
        send(life.vhost, "q", bytes([n]) * 400, delivery_mode=2)
    life.commit()
    life.store.close()
    return directory / FILE


def changed(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(filled(directory))) as connection:
        connection.execute(statement)
        connection.commit()


def foreign_directory(directory: Path) -> None:
    directory.mkdir()
    (directory / "letters.txt").write_text("dear anna", "utf-8")


def foreign_database(directory: Path) -> None:
    directory.mkdir()
    with closing(sqlite3.connect(directory / FILE)) as connection:
        connection.execute("CREATE TABLE letters (text)")


def no_database(directory: Path) -> None:
    directory.mkdir()
    (directory / FILE).write_bytes(b"dear anna, " * 1000)


def file_instead(directory: Path) -> None:
    directory.write_text("", "utf-8")


def newer(directory: Path) -> None:
    changed(directory, f"PRAGMA user_version = {VERSION + 1}")


def overwritten(directory: Path) -> None:
    file = filled(directory)
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def cut_off(directory: Path) -> None:
    file = filled(directory)
    file.write_bytes(file.read_bytes()[:9000])


def bad_record(directory: Path) -> None:
    changed(directory, "UPDATE messages SET record = x'c1' WHERE id % 7 = 0")


def bad_state(directory: Path) -> None:
    changed(directory, "UPDATE messages SET state = 17")


def bad_arguments(directory: Path) -> None:
    changed(directory, "UPDATE queues SET arguments = x'ffffffff'")


def no_queue(directory: Path) -> None:
    changed(directory, "DELETE FROM queues")


BAD: dict[Callable[[Path], None], str] = {
    foreign_directory: "is not empty and not a broker's: name a new one",
    foreign_database: f"is not a broker's: {FILE} is another program's",
    no_database: "is damaged",
    file_instead: "cannot be used: File exists",
    newer: f"was written by a newer unimq (format {VERSION + 1}, here {VERSION})",
    overwritten: "is damaged",
    cut_off: "is damaged",
    bad_record: "is damaged",
    bad_state: "is damaged: no message is in state 17",
    bad_arguments: "is damaged",
    no_queue: "is damaged",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_refused_in_one_sentence(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "data"
    make(directory)
    before = content(directory)
    assert command.main(["--amqp", "0", "--data", str(directory)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"unimq broker: the data directory {directory} ")
    assert BAD[make] in said and said.count("\n") == 1
    assert content(directory) == before


def content(directory: Path) -> dict[str, bytes]:
    if directory.is_file():
        return {"": directory.read_bytes()}
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.suffix == ".sqlite3"}


def test_one_broker_at_a_time(tmp_path: Path) -> None:
    with broker.run(amqp=0, data=tmp_path / "data"):
        with pytest.raises(DataError, match="is in use by another broker"):
            broker.run(amqp=0, data=tmp_path / "data")
    with broker.run(amqp=0, data=tmp_path / "data"):
        pass


def test_a_directory_that_may_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DataError, match="cannot be used"):
        Store(tmp_path / "file" / "data")


def test_begun_and_killed_before_anything_was_written(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"")
    Store(tmp_path).close()
    Store(tmp_path).close()


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "data").close()
    assert (tmp_path / "a" / "data").stat().st_mode & 0o077 == 0
