"""The reference broker: real protocols on sockets, in front of one pure engine.

Rooms: `engine/` holds queues and topics and knows no protocol; `sessions/<protocol>` turn frames into engine calls.
It is made for tests and development: what it promises is that clients cannot tell it from the broker it stands for.
"""
