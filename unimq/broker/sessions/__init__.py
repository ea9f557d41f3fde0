"""Sessions: one per connection, bytes in, engine calls, bytes out. One room per protocol, nothing shared but the engine.

Rules
- A session does no I/O and starts no thread: `line.py` says what it is given and what is asked of it.
- Every session and the engine run on one thread, the server's loop. Nothing in here takes a lock.
- What a session may do in which state is a table.
"""
