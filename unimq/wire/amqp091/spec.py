"""The methods of AMQP 0-9-1, as a table.

Source: the AMQP 0-9-1 specification (classes connection, channel, exchange, queue, basic, tx), access of 0-9 which RabbitMQ
still answers, and RabbitMQ's extensions (connection.blocked, unblocked and update-secret, exchange.bind and unbind,
basic.nack, confirm). The fields are those of the wire, in order; one with a leading underscore is reserved: written as zero,
skipped when read. `+content` marks methods that are followed by a content header and body.
"""

from __future__ import annotations

from typing import Final

CLASSES: Final = {
    "connection": 10,
    "channel": 20,
    "access": 30,
    "exchange": 40,
    "queue": 50,
    "basic": 60,
    "confirm": 85,
    "tx": 90,
}

# class.method  id  fields
METHODS: Final = """
connection.start          10  octet octet table longstr longstr
connection.start-ok       11  table shortstr longstr shortstr
connection.secure         20  longstr
connection.secure-ok      21  longstr
connection.tune           30  short long short
connection.tune-ok        31  short long short
connection.open           40  shortstr _shortstr _bit
connection.open-ok        41  _shortstr
connection.close          50  short shortstr short short
connection.close-ok       51
connection.blocked        60  shortstr
connection.unblocked      61
connection.update-secret    70  longstr shortstr
connection.update-secret-ok 71
channel.open              10  _shortstr
channel.open-ok           11  _longstr
channel.flow              20  bit
channel.flow-ok           21  bit
channel.close             40  short shortstr short short
channel.close-ok          41
access.request            10  shortstr bit bit bit bit bit
access.request-ok         11  short
exchange.declare          10  _short shortstr shortstr bit bit bit bit bit table
exchange.declare-ok       11
exchange.delete           20  _short shortstr bit bit
exchange.delete-ok        21
exchange.bind             30  _short shortstr shortstr shortstr bit table
exchange.bind-ok          31
exchange.unbind           40  _short shortstr shortstr shortstr bit table
exchange.unbind-ok        51
queue.declare             10  _short shortstr bit bit bit bit bit table
queue.declare-ok          11  shortstr long long
queue.bind                20  _short shortstr shortstr shortstr bit table
queue.bind-ok             21
queue.purge               30  _short shortstr bit
queue.purge-ok            31  long
queue.delete              40  _short shortstr bit bit bit
queue.delete-ok           41  long
queue.unbind              50  _short shortstr shortstr shortstr table
queue.unbind-ok           51
basic.qos                 10  long short bit
basic.qos-ok              11
basic.consume             20  _short shortstr shortstr bit bit bit bit table
basic.consume-ok          21  shortstr
basic.cancel              30  shortstr bit
basic.cancel-ok           31  shortstr
basic.publish             40  _short shortstr shortstr bit bit +content
basic.return              50  short shortstr shortstr shortstr +content
basic.deliver             60  shortstr longlong bit shortstr shortstr +content
basic.get                 70  _short shortstr bit
basic.get-ok              71  longlong bit shortstr shortstr long +content
basic.get-empty           72  _shortstr
basic.ack                 80  longlong bit
basic.reject              90  longlong bit
basic.recover-async      100  bit
basic.recover            110  bit
basic.recover-ok         111
basic.nack               120  longlong bit bit
confirm.select            10  bit
confirm.select-ok         11
tx.select                 10
tx.select-ok              11
tx.commit                 20
tx.commit-ok              21
tx.rollback               30
tx.rollback-ok            31
"""

# The properties of a content of class basic, the first one in the highest bit of the flags.
PROPERTIES: Final = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8
FRAME_END: Final = 0xCE

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
