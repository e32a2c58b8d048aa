"""Knows what is stored: settings, Quay's tables, manifests, blobs, and what Clair said of them.

No loops, no processes and no queue here; nothing in this folder imports `queues` or `workers`.
"""
