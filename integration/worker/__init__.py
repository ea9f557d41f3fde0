"""The worker on real brokers."""
