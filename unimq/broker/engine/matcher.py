"""Which messages a subscription wants: subject patterns and header equality.

Rules
- A subject is words between dots. `*` is one word, `#` any number of words, none included.
- The empty subject is zero words: `#` matches it, `*` does not. `a..c` has an empty word: `a.*.c` matches it.
- `subjects` are alternatives (none: every subject); all pairs of `where` must hold; both must match.
- True is not 1: header values are equal only when both or neither are booleans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from .limits import MAX_PATTERNS_PER_FILTER

COMPILED_PATTERNS: Final = 4_096


def words_of(subject: str) -> list[str]:
    return subject.split(".") if subject else []


class Pattern:
    """One compiled pattern. Get it from `compiled`, which remembers."""

    __slots__ = ("_any_tail", "_exact", "_simple", "_words", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        words = words_of(text)
        self._exact = "*" not in words and "#" not in words
        # `#` only at the end, if at all: word by word, without backtracking
        self._any_tail = bool(words) and words[-1] == "#"
        self._words = words[:-1] if self._any_tail else words
        self._simple = "#" not in self._words

    def matches(self, subject: str) -> bool:
        return subject == self.text if self._exact else self.matches_words(words_of(subject))

    def matches_words(self, words: list[str]) -> bool:
        pattern = self._words
        if self._simple:
            if len(words) < len(pattern) or (len(words) > len(pattern) and not self._any_tail):
                return False
            return all(p == "*" or p == w for p, w in zip(pattern, words, strict=False))
        # all places in the pattern where one can stand: linear in words × pattern whatever the text
        places = _through_hashes({0}, pattern)
        for word in words:
            step = set()
            for at in places:
                if at == len(pattern):
                    if self._any_tail:
                        step.add(at)
                elif pattern[at] == "#":
                    step.add(at)
                elif pattern[at] == "*" or pattern[at] == word:
                    step.add(at + 1)
            places = _through_hashes(step, pattern)
            if not places:
                return False
        return len(pattern) in places

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _through_hashes(places: set[int], pattern: list[str]) -> set[int]:
    """A `#` may be zero words: whoever stands before it also stands behind it."""
    out = set(places)
    for at in places:
        while at < len(pattern) and pattern[at] == "#":
            at += 1
            out.add(at)
    return out


@lru_cache(maxsize=COMPILED_PATTERNS)
def compiled(text: str) -> Pattern:
    return Pattern(text)


_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Filter:
    """A value: two filters are the same filter when they are equal."""

    subjects: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.subjects) > MAX_PATTERNS_PER_FILTER:
            raise ValueError(
                f"a filter has at most {MAX_PATTERNS_PER_FILTER} patterns, not {len(self.subjects)}"
            )
        object.__setattr__(self, "subjects", tuple(sorted(set(self.subjects))))
        object.__setattr__(self, "where", MappingProxyType(dict(self.where)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return (
            self.subjects == other.subjects
            and self.where.keys() == other.where.keys()
            and all(_same(value, other.where[name]) for name, value in self.where.items())
        )

    def differences(self, asked: Filter) -> dict[str, tuple[object, object]]:
        """field → (what is there, what is asked for)."""
        found: dict[str, tuple[object, object]] = {}
        if self.subjects != asked.subjects:
            found["subjects"] = (self.subjects, asked.subjects)
        if Filter((), self.where) != Filter((), asked.where):
            found["where"] = (dict(self.where), dict(asked.where))
        return found

    def wants_subject(self, subject: str) -> bool:
        return not self.subjects or any(compiled(text).matches(subject) for text in self.subjects)

    def wants_headers(self, headers: Mapping[str, Any]) -> bool:
        return all(_same(value, headers.get(name, _MISSING)) for name, value in self.where.items())

    def wants(self, subject: str, headers: Mapping[str, Any]) -> bool:
        return self.wants_subject(subject) and self.wants_headers(headers)


def _same(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


EVERYTHING: Final = Filter()
