"""Knows where the bytes of a blob lie: one small port, one file an engine."""
