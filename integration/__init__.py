"""Tests on real brokers. Where a broker comes from is decided in `sources`; `python -m integration.up` starts some by hand."""
