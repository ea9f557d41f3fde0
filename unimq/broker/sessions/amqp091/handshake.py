"""The methods of channel 0, and the table of the states in which they may come. The states are at the top of `connection.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from unimq.wire.amqp091.decoder import PROTOCOL_HEADER
from unimq.wire.amqp091.encode import method_frame
from unimq.wire.amqp091.limits import FRAME_MAX_BYTES, FRAME_MIN_BYTES
from unimq.wire.amqp091.spec import PROTOCOL_HEADER as OUR_HEADER

from .greeting import (
    LOCALES,
    MECHANISMS,
    MECHANISMS_WITH_CERTIFICATE,
    credentials,
    password_fits,
    server_properties,
)
from .limits import CHANNEL_MAX, HEARTBEAT_S

if TYPE_CHECKING:
    from .connection import Connection


def protocol_header(at: Connection, header: bytes) -> None:
    if header != OUR_HEADER:
        at.out.append(OUR_HEADER)
        at.end()
        return
    mechanisms = MECHANISMS if at.line.certificate_name is None else MECHANISMS_WITH_CERTIFICATE
    properties = server_properties(at.node.dialect.name, at.node.name)
    at.out.append(method_frame(0, "connection.start", 0, 9, properties, mechanisms, LOCALES))
    at.state = "starting"


def start_ok(
    at: Connection, properties: dict[str, Any], mechanism: str, response: bytes, _locale: str
) -> None:
    capabilities = properties.get("capabilities")
    at.capabilities = capabilities if isinstance(capabilities, dict) else {}
    if mechanism == "EXTERNAL" and at.line.certificate_name is not None:
        name = at.line.certificate_name
        user = name if name in at.node.users else None
    elif mechanism in ("PLAIN", "AMQPLAIN"):
        given = credentials(mechanism, response)
        if given is None:
            at.fail_here(502, f"{mechanism} response invalid", "connection.start-ok")
            return
        user = given[0] if password_fits(at.node.users, *given) else None
    else:
        at.fail_here(503, f"unknown authentication mechanism '{mechanism}'", "connection.start-ok")
        return
    if user is None:
        refuse_login(at, mechanism)
        return
    at.user = user
    at.out.append(method_frame(0, "connection.tune", CHANNEL_MAX, FRAME_MAX_BYTES, HEARTBEAT_S))
    at.state = "tuning"


def refuse_login(at: Connection, mechanism: str) -> None:
    if at.capabilities.get("authentication_failure_close") is True:
        text = (
            f"Login was refused using authentication mechanism {mechanism}. "
            "For details see the broker logfile."
        )
        at.close_with(403, text, 0, 0)
    else:
        at.end()


def tune_ok(at: Connection, channel_max: int, frame_max: int, heartbeat_s: int) -> None:
    for what, asked, low, high in (
        ("frame_max", frame_max, FRAME_MIN_BYTES, FRAME_MAX_BYTES),
        ("channel_max", channel_max, 1, CHANNEL_MAX),
    ):
        if asked == 0 or asked > high:
            given = asked or "no limit"
            text = f"negotiated {what} = {given} is higher than the maximum allowed value ({high})"
        elif asked < low:
            text = f"negotiated {what} = {asked} is lower than the minimum allowed value ({low})"
        else:
            continue
        at.fail_here(530, text, "connection.tune-ok")
        return
    at.channel_max = channel_max
    at.frame_max = at.decoder.frame_max = frame_max
    at.heartbeat_s = heartbeat_s
    if heartbeat_s:
        at.stop_heartbeat = at.line.call_later(heartbeat_s / 2, at.beat)
    at.state = "opening"


def open_vhost(at: Connection, vhost: str) -> None:
    there = at.node.vhosts.get(vhost)
    if there is None:
        at.fail_here(530, f"vhost {vhost} not found", "connection.open")
        return
    at.vhost = there
    at.vhost_name = vhost
    at.stop_timer()
    at.node.connections[at] = None
    at.state = "running"
    at.out.append(method_frame(0, "connection.open-ok"))


def update_secret(at: Connection, _secret: bytes, _reason: str) -> None:
    """Users with passwords have nothing to renew: RabbitMQ takes any."""
    at.out.append(method_frame(0, "connection.update-secret-ok"))


def close(at: Connection, _code: int, _text: str, _class_id: int, _method_id: int) -> None:
    at.out.append(method_frame(0, "connection.close-ok"))
    at.end()


def close_ok(at: Connection) -> None:
    at.end()


# (state, method on channel 0) → what happens. Whatever is not here is an error in that state.
STEPS: Final[dict[tuple[str, str], Callable[..., None]]] = {
    ("header", PROTOCOL_HEADER): protocol_header,
    ("starting", "connection.start-ok"): start_ok,
    ("tuning", "connection.tune-ok"): tune_ok,
    ("opening", "connection.open"): open_vhost,
    ("running", "connection.close"): close,
    ("running", "connection.close-ok"): close_ok,
    ("running", "connection.update-secret"): update_secret,
    ("opening", "connection.close"): close,
    ("tuning", "connection.close"): close,
}
