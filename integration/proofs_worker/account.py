"""Sent, handled and dead, compared from outside: raw pika and a file of results, nothing of unimq.

Rules
- What must become of each message is in its body, and is decided from a seed before the first one is sent.
- Every message is handled or dead; the dead are exactly those that had to die, each for its own reason.
- `Sent` and `handled` may differ by duplicates, as many as kills and cuts may leave: (kills + cuts) times the prefetch.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

QUORUM_ARGUMENTS = {"x-queue-type": "quorum"}
REASONS = {
    "exhausted": "exhausted",
    "fatal": "fatal",
    "killer": "crashed",
}  # kind of message → why it must be dead
STORY = (
    "unimq-crashes",
    "unimq-copies",
    "unimq-attempt",
    "unimq-description",
    "x-delivery-count",
)  # of an innocent one
NAMED_MAX = 10  # of what is wrong, so many are named


@dataclass
class Report:
    """What was found; `wrong` is empty when the promise held."""

    queue: str
    seed: int
    sent: dict[int, str]
    handled: Counter[int] = field(default_factory=Counter)
    dead: dict[int, list[str]] = field(default_factory=dict)
    waiting: Counter[int] = field(
        default_factory=Counter
    )  # still in the queue or a delay queue when the round ended
    kills: int = 0
    cuts: int = 0
    own_deaths: int = 0
    took_s: float = 0.0
    near: Counter[int] = field(
        default_factory=Counter
    )  # how often in hand at a bad end → innocents it was so for
    wrong: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        return (
            sum(self.handled.values())
            - len(self.handled)
            + sum(map(len, self.dead.values()))
            - len(self.dead)
        )

    def allowed(self, prefetch: int) -> int:
        return (self.kills + self.own_deaths + self.cuts) * prefetch

    def __str__(self) -> str:
        reasons = Counter(reason for each in self.dead.values() for reason in each)
        return (
            f"{self.queue} seed {self.seed}: sent {len(self.sent)}, handled {len(self.handled)}, dead {len(self.dead)} "
            f"{dict(reasons)}, duplicates {self.duplicates}, kills {self.kills}, cuts {self.cuts}, own deaths "
            f"{self.own_deaths}, innocents by bad ends {dict(sorted(self.near.items()))}, {self.took_s:.0f} s: "
            + ("; ".join(self.wrong[:NAMED_MAX]) or "all well")
        )


def kinds(count: int, rng: random.Random, killers: int) -> dict[int, str]:
    """10 % transient, 1 % for good (half of them fatal), `killers`, one of them the first of all."""
    made = dict.fromkeys(range(count), "good")
    transient, for_good = count // 10, count // 100
    others = rng.sample(range(1, count), transient + for_good + killers - 1)
    for n in others[:transient]:
        made[n] = "transient"
    for index, n in enumerate(others[transient : transient + for_good]):
        made[n] = ("exhausted", "fatal")[index % 2]
    for n in [0, *others[transient + for_good :]]:
        made[n] = "killer"
    return made


def _not_a_question(record: logging.LogRecord) -> bool:
    """pika warns when a broker closes a channel; "not found" is an answer that is asked for here."""
    return "NOT_FOUND" not in record.getMessage()


class Account:
    """One queue of the proof, with its dead-letter and delay queues, and the file of what was handled."""

    def __init__(self, url: str, report: Report, results: Path, delays_ms: tuple[int, ...]) -> None:
        self._report = report
        self._results = results
        self._queue = report.queue
        self._places = [f"{self._queue}.retry.{ms}" for ms in delays_ms]
        results.touch()
        logging.getLogger("pika.channel").addFilter(_not_a_question)
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # nobody reads this connection while workers are killed
        self._connection = pika.BlockingConnection(parameters)

    def fill(self, *, quorum: bool) -> None:
        """Returns when the broker has confirmed all."""
        channel = self._connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(self._queue, durable=True, arguments=QUORUM_ARGUMENTS if quorum else None)
        for n, kind in self._report.sent.items():
            body = json.dumps({"n": n, "kind": kind}).encode()
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"m-{n}")
            channel.basic_publish("", self._queue, body, properties, mandatory=True)
        channel.close()

    def left(self) -> tuple[int, int, int]:
        """(not handled, ready somewhere, not dead yet); what is in a worker's hands is in the first or the last."""
        sent = self._report.sent
        wanted = {n for n, kind in sent.items() if kind not in REASONS}
        ready = sum(self._depth(name) for name in (self._queue, *self._places))
        must_die = len(sent) - len(wanted)
        return len(wanted - set(self._handled())), ready, max(must_die - self._depth(f"{self._queue}.dlq"), 0)

    def handlers(self) -> set[int]:
        """The processes that have handled something."""
        return {int(line.split()[1]) for line in self._results.read_text().splitlines()}

    def _near(self) -> Counter[int]:
        """Each handled message by the highest count it came with, where that is not 0."""
        worst: Counter[int] = Counter()
        for line in self._results.read_text().splitlines():
            number, _, count = map(int, line.split())
            worst[number] = max(worst[number], count)
        return Counter(count for count in worst.values() if count)

    def _handled(self) -> Counter[int]:
        return Counter(int(line.split()[0]) for line in self._results.read_text().splitlines())

    def _depth(self, queue: str) -> int:
        channel: Any = self._connection.channel()
        try:
            depth = int(channel.queue_declare(queue, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0  # a place that nobody needed yet
        channel.close()
        return depth

    def _taken(self, queue: str) -> list[tuple[int, dict[str, Any]]]:
        """Everything that is ready there, and gone afterwards: number and headers."""
        if not self._depth(queue):
            return []
        channel: Any = self._connection.channel()
        taken: list[tuple[int, dict[str, Any]]] = []
        while True:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append((json.loads(body)["n"], properties.headers or {}))

    def compare(self, prefetch: int, crashes: int) -> None:
        """Writes what it finds into the report."""
        report = self._report
        report.handled = self._handled()
        report.near = self._near()
        for place in (self._queue, *self._places):
            report.waiting += Counter(n for n, _ in self._taken(place))
        stories: dict[int, str] = {}
        for n, headers in self._taken(f"{self._queue}.dlq"):
            report.dead.setdefault(n, []).append(str(headers.get("unimq-reason")))
            stories[n] = ", ".join(f"{name} {headers[name]}" for name in STORY if name in headers)
        if report.waiting:
            report.wrong.append(f"{report.waiting.total()} are still waiting")
        for n, kind in report.sent.items():
            reasons = set(report.dead.get(n, ()))
            if kind in REASONS:
                if reasons != {REASONS[kind]} and (reasons or n not in report.waiting):
                    report.wrong.append(
                        f"{n} ({kind}) should be dead as {REASONS[kind]}, is {reasons or 'not'}"
                    )
            elif reasons:
                report.wrong.append(f"{n} ({kind}) is innocent, and dead as {reasons}: {stories[n]}")
            elif n not in report.handled and n not in report.waiting:
                report.wrong.append(f"{n} ({kind}) is lost")
        if report.duplicates > report.allowed(prefetch):
            report.wrong.append(f"{report.duplicates} duplicates, {report.allowed(prefetch)} allowed")
        killers = sum(kind == "killer" for kind in report.sent.values())
        # a duplicate of a killer is a message of its own, with a count of its own
        if report.own_deaths > killers * crashes + report.duplicates:
            report.wrong.append(
                f"{killers} killers killed {report.own_deaths} times, {crashes} each are allowed"
            )

    def wait(self, seconds: float) -> None:
        self._connection.sleep(seconds)

    def clean(self) -> None:
        """Delete what the proof made."""
        channel = self._connection.channel()
        for name in (self._queue, f"{self._queue}.dlq", *self._places):
            channel.queue_delete(name)
        self._connection.close()
        logging.getLogger("pika.channel").removeFilter(_not_a_question)
