"""Knows what is stored: settings, Quay's tables, manifests, blobs, the scanner, a manifest's status.

No loops, no processes and no queue here; nothing in this folder imports `queues` or `workers`.
"""
