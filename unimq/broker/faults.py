"""Faults on purpose: what a broker under test does wrong, by rule.

Rules
- A rule names a method ("basic.publish", "*" for any), how many of them pass first, and how often it then strikes.
- Rules are looked at in the order in which they were added; the first that fits decides.
- Without rules a session does not come here at all.

action          what happens
--------------  ---------------------------------------------------------------------------
drop-before     the connection is cut; the command was not carried out
drop-after      the command is carried out, then the connection is cut: its answer is lost
lose-confirm    basic.publish is carried out and never confirmed
duplicate       basic.publish is carried out twice and confirmed once
delay           the command, and what this connection sends behind it, waits `delay_s` of real time
refuse          the connection or the channel is closed with `code`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Action = Literal["drop-before", "drop-after", "lose-confirm", "duplicate", "delay", "refuse"]
ACTIONS: Final = ("drop-before", "drop-after", "lose-confirm", "duplicate", "delay", "refuse")
DELAY_MAX_S: Final = 3600.0


@dataclass(slots=True)
class Rule:
    action: Action
    method: str = "*"
    after: int = 0  # so many pass first
    times: int = 1  # so often it strikes; 0: always from then on
    code: int = 541
    text: str = "refused by a fault rule"
    delay_s: float = 0.0
    seen: int = 0
    struck: int = 0

    def strikes(self, method: str) -> bool:
        if self.method not in ("*", method):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times and self.struck >= self.times):
            return False
        self.struck += 1
        return True


class Faults:
    """`broker.faults`: add rules at any time, from any thread."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: list[Rule] = list(rules)

    def add(self, action: Action, method: str = "*", **options: Any) -> Rule:
        rule = _checked(Rule(action, method, **options))
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def strike(self, method: str) -> Rule | None:
        for rule in self.rules:
            if rule.strikes(method):
                return rule
        return None


def parsed(document: Mapping[str, Any]) -> Faults:
    """A faults file: `{"rules": [{"action": "drop-after", "method": "basic.publish", "after": 10}, …]}`."""
    rules = document.get("rules")
    if not isinstance(rules, list):
        raise ValueError('a faults file has a list "rules"')
    return Faults(_checked(Rule(**rule)) for rule in rules)


def _checked(rule: Rule) -> Rule:
    if rule.action not in ACTIONS:
        raise ValueError(f"a fault's action is one of {', '.join(ACTIONS)}, not {rule.action!r}")
    if rule.action == "delay" and not 0 < rule.delay_s <= DELAY_MAX_S:
        raise ValueError(f"a delay has a delay_s above 0 and at most {DELAY_MAX_S:g}, not {rule.delay_s!r}")
    return rule
