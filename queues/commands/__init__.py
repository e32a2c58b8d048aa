"""Speaks with a person: the commands of `python -m queues`, one subject a file."""
