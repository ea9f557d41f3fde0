"""A marked password, and everywhere it could show.

Rules
- The password has the characters that are awkward in a URL; the mark is in it unescaped in every form but base64.
- `Watch` collects every log record of every logger at DEBUG, with its arguments and its traceback, as a handler would write it.
- `texts_of` is all that an error shows: text, repr, attributes, the causes, the formatted traceback (source lines, no
  locals), and the same after a pickle.
"""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

MARK = "Zk7Mark9q"
USER = "proof-user"
PASSWORD = f"p@/:,w {MARK}?#"
ENCODED = quote(PASSWORD, safe="")
_NEEDLES = (
    MARK.lower(),
    *(
        base64.b64encode(text.encode()).decode().rstrip("=").lower()
        for text in (PASSWORD, f"\0{USER}\0{PASSWORD}", f"{USER}:{PASSWORD}")
    ),
)


def shows(text: str) -> bool:
    low = text.lower()
    return any(needle in low for needle in _NEEDLES)


class Watch(logging.Handler):
    """A context: all loggers at DEBUG, everything kept. `leaks` has what showed the password, by logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.count = 0
        self.leaks: list[str] = []
        self._levels: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        text = self.format(record) + repr(record.args) + repr(record.__dict__.get("extra"))
        if shows(text):
            self.leaks.append(f"log {record.name}: {text[:300]}")

    def __enter__(self) -> Watch:
        root = logging.getLogger()
        loggers = [
            root,
            *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)),
        ]
        self._levels = {each.name: each.level for each in loggers}
        for each in loggers:
            each.setLevel(logging.DEBUG)
        root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        for name, level in self._levels.items():
            logging.getLogger(None if name == "root" else name).setLevel(level)


def texts_of(error: BaseException) -> Iterator[str]:
    yield "".join(traceback.format_exception(error))
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        todo += [each.__cause__, each.__context__, getattr(each, "cause", None)]
    copied = pickle.loads(pickle.dumps(error))
    yield from (str(copied), repr(copied), repr(vars(copied)))


def leaks_of(what: str, *shown: Any) -> list[str]:
    """What of these shows the password: errors in all their texts, other objects by `str` and `repr`."""
    found: list[str] = []
    for each in shown:
        texts = (
            texts_of(each)
            if isinstance(each, BaseException)
            else iter((each if isinstance(each, str) else repr(each), str(each)))
        )
        found += [f"{what}: {text[:400]}" for text in texts if shows(text)]
    return found
