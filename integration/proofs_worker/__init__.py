"""Proofs of the worker on a real broker: it is killed again and again, and a program that knows nothing of it counts."""
