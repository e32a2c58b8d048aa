"""Knows what a manifest says: its layers, its config, and whether Clair can scan it."""

from data.manifests.manifest import Child, Layer, Manifest, Unscannable
from data.manifests.parse import parse_manifest

__all__ = ["Child", "Layer", "Manifest", "Unscannable", "parse_manifest"]
