"""How fast unimq is beside the client library it stands on: `python -m bench rabbitmq`.

Rules
- Every row has a *twin*: the same work done with the client library alone, by its best documented path, with the same
  confirms, flags, headers and ids. Twins are in `bench/raw` and are meant to be read and criticised.
- Both run in one process, in turns; what is compared are neighbours, never two sessions.
- A session says how far it can be trusted: the twin is measured against itself beside it.
"""
