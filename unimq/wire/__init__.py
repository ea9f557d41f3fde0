"""Sans-IO codecs, one room per protocol: bytes ↔ frames.

Rules
- No socket, clock, thread or loop in here. Bytes are fed in, frames come out; values go in, bytes come out.
- Every decoder is bounded: it holds one frame (and the contents under way, up to a named limit), whatever it is fed.
- Malformed input raises the protocol's own error, with the protocol's code, and nothing else.
"""
