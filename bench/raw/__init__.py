"""The twins: the client library alone, by its best documented path.

Rules
- A twin uses public names of its library only, and nothing of unimq.
- It gives what unimq gives by default: confirmed and mandatory, an id per message, persistent, every outcome known.
- What it does to be fast is what its documentation shows or what any careful user would do.
"""
