"""Statistics, purge and delete need the brokers' management (Jolokia) and are not carried yet: their capabilities are
absent, and a `Connection` has no `Admin`."""
