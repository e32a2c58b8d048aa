"""The parts of the ops server: health, metrics, the rescan API and the page."""
