"""Knows the security status of a manifest: the row in Quay's table and Clair, which fills it."""
