"""Knows what a manifest says: its layers, its config, and whether Clair can scan it."""
