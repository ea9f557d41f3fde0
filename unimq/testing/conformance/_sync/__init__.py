# Generated from unimq/testing/conformance/_async/__init__.py by tools/unasync.py; do not edit.
