"""`unimq dlq ls|show|replay|purge ADDRESS`: the dead letters of a source.

Rules
- `replay` and `purge` ask unless `--yes`. `--json` is one JSON document a line.
- Exit codes as everywhere: 0 done, 1 an error, 2 a wrong call, 3 nothing there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from unimq import DeadLetter

from .app import NOTHING_THERE, Json, Url, Where, Yes, _shown, _source, _target, client, console

app: typer.Typer = typer.Typer(
    no_args_is_help=True, help="The dead letters of a source: look, bring back, remove."
)

Limit = Annotated[int, typer.Option("--limit", "-n", min=1)]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Only those that died of this (exhausted, fatal, crashed, ...)."),
]
Id = Annotated[str | None, typer.Option("--id", help="Only the one with this message id.")]
BROWSE_MAX = 10_000


def _document(letter: DeadLetter) -> dict[str, Any]:
    """All there is to know about one."""
    return {
        **_shown(letter.delivery),
        "reason": letter.reason,
        "description": letter.description,
        "error_type": letter.error_type,
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at,
        "died_at": letter.died_at,
        "origin": letter.origin,
        "place": letter.place,
        "history": list(letter.history),
    }


def _fits(reason: str | None, message_id: str | None) -> Callable[[DeadLetter], bool]:
    def fits(letter: DeadLetter) -> bool:
        return (reason is None or letter.reason == reason) and (
            message_id is None or letter.delivery.message_id == message_id
        )

    return fits


@app.command("ls")
def ls(
    address: Where, url: Url = None, limit: Limit = 20, reason: Reason = None, as_json: Json = False
) -> None:
    """One line for each, oldest first."""
    fits = _fits(reason, None)
    with client(url) as mq:
        letters = mq.dead_letters(_source(address)).browse(limit if reason is None else BROWSE_MAX)
    letters = [letter for letter in letters if fits(letter)][:limit]
    if as_json:
        for letter in letters:
            print(json.dumps(_document(letter), default=str))
    elif letters:
        table = Table("died", "reason", "tries", "message id", "error", "why")
        for letter in letters:
            died = "" if letter.died_at is None else letter.died_at.isoformat(sep=" ", timespec="seconds")
            table.add_row(
                died,
                letter.reason or "?",
                str(letter.attempts),
                letter.delivery.message_id or "?",
                letter.error_type or "",
                escape((letter.description or "").partition("\n")[0]),
            )
        console.print(table)
    if not letters:
        raise typer.Exit(NOTHING_THERE)


@app.command()
def show(
    address: Where,
    message_id: Annotated[str, typer.Argument(metavar="MESSAGE_ID")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Everything about one of them: its fields, its body, why it died and what came before."""
    fits = _fits(None, message_id)
    with client(url) as mq:
        found = [letter for letter in mq.dead_letters(_source(address)).browse(BROWSE_MAX) if fits(letter)]
    for letter in found:
        document = _document(letter)
        if as_json:
            print(json.dumps(document, default=str))
            continue
        for name, value in document.items():
            if value:
                console.print(f"[bold]{name:>16}[/]  {escape(str(value))}", highlight=False)
    if not found:
        raise typer.Exit(NOTHING_THERE)


@app.command()
def replay(
    address: Where,
    url: Url = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1)] = None,
    reason: Reason = None,
    message_id: Id = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Messages a second.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ADDRESS", help="Elsewhere than the group they failed in.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Send them back to the group they failed in, each confirmed before it is removed. Asks first."""
    source = _source(address)
    target = None if to is None else _target(to)
    fits = None if reason is None and message_id is None else _fits(reason, message_id)
    with client(url) as mq:
        dead = mq.dead_letters(source)
        there = dead.count()
        if there == 0:
            raise typer.Exit(NOTHING_THERE)
        if not yes:
            what = "the chosen" if fits is not None else "all" if limit is None else f"{limit} of the"
            typer.confirm(
                f"Replay {what} {'?' if there is None else there} dead letters of {source}?", abort=True
            )
        with _bar("replaying", there) as step:
            back = dead.replay(limit=limit, where=step(fits), rate=rate, to=target)
    print(f"replayed {back}")
    if not back:
        raise typer.Exit(NOTHING_THERE)


class _bar:  # noqa: N801 - used like a function
    """A progress bar on a terminal; nothing where somebody reads the output."""

    def __init__(self, what: str, total: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
            disable=not sys.stdout.isatty(),
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=total)

    def __enter__(
        self,
    ) -> Callable[[Callable[[DeadLetter], bool] | None], Callable[[DeadLetter], bool] | None]:
        self._progress.start()
        return self._step

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _step(self, fits: Callable[[DeadLetter], bool] | None) -> Callable[[DeadLetter], bool] | None:
        if self._progress.disable:
            return fits

        def stepping(letter: DeadLetter) -> bool:
            self._progress.advance(self._task)
            return fits is None or fits(letter)

        return stepping


@app.command()
def purge(address: Where, url: Url = None, yes: Yes = False) -> None:
    """Remove them all, for good. Asks first."""
    source = _source(address)
    with client(url) as mq:
        dead = mq.dead_letters(source)
        there = dead.count()
        if there == 0:
            raise typer.Exit(NOTHING_THERE)
        if not yes:
            typer.confirm(
                f"Remove {'all' if there is None else there} dead letters of {source} for good?", abort=True
            )
        with console.status("removing"):
            gone = dead.purge()
    print(f"removed {'?' if gone is None else gone}")
