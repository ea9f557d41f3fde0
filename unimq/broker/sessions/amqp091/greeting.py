"""What RabbitMQ says of itself, and the login mechanisms.

Rules
- EXTERNAL is offered only on a line with a verified client certificate; its common name is the name of the user.
- A mechanism answers with (user, password) or None when what came makes no sense; passwords are compared in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from unimq.wire.amqp091.errors import WireError
from unimq.wire.amqp091.table import decode_table

VERSIONS: Final = {"3": "3.10.8", "4": "4.0.5"}

CAPABILITIES: Final = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}

MECHANISMS: Final = b"AMQPLAIN PLAIN"
MECHANISMS_WITH_CERTIFICATE: Final = b"EXTERNAL AMQPLAIN PLAIN"
LOCALES: Final = b"en_US"


def server_properties(dialect: str, cluster_name: str) -> dict[str, Any]:
    return {
        "capabilities": dict(CAPABILITIES),
        "cluster_name": cluster_name,
        "copyright": "Reference broker of unimq, for tests and development; not RabbitMQ itself.",
        "information": "Speaks AMQP 0-9-1 as RabbitMQ does.",
        "platform": "unimq",
        "product": "RabbitMQ",
        "version": VERSIONS[dialect],
    }


def credentials(mechanism: str, response: bytes) -> tuple[str, str] | None:
    """PLAIN and AMQPLAIN."""
    if mechanism == "PLAIN":
        parts = response.split(b"\x00")
        if len(parts) != 3:
            return None
        return _text(parts[1]), _text(parts[2])
    try:
        fields, _ = decode_table(len(response).to_bytes(4, "big") + response, 0, len(response) + 4)
    except WireError:
        return None
    user, password = fields.get("LOGIN"), fields.get("PASSWORD")
    if isinstance(user, str) and isinstance(password, str):
        return user, password
    return None


def password_fits(users: Mapping[str, str], user: str, password: str) -> bool:
    there = users.get(user)
    return there is not None and hmac.compare_digest(
        there.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
