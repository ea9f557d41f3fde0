"""The sync facade: generated from `_async`, but for `_wait.py`."""
