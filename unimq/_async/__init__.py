"""The async facade: the source of both. `_sync` is generated from it by `tools/unasync.py`; `_wait.py` is hand-written."""
