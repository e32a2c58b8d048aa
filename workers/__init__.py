"""Runs: one file a worker type, started as Quay starts its own (`python -m workers.<type>`)."""
