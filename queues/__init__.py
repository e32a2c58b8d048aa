"""Moves work: Quay's own queue of blobs, the RQ queue of rescans, and its command line."""
