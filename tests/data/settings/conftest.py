"""A config.yaml with the keys that every Quay has, and whatever a test adds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.settings import Settings, read_settings

STORAGE = {"default": ["LocalStorage", {"storage_path": "/datastorage/registry"}]}
MINIMUM = {
    "DB_URI": "postgresql://quay:password@database.example/quay",
    "DISTRIBUTED_STORAGE_CONFIG": STORAGE,
}

Read = Callable[..., Settings]


def write_config(directory: Path, config: dict[str, Any] | str) -> Path:
    path = directory / "config.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return path


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads the minimum and `keys`, in an environment with nothing but `environ`."""

    def read(environ: dict[str, str] | None = None, **keys: Any) -> Settings:
        return read_settings(write_config(tmp_path, {**MINIMUM, **keys}), environ or {})

    return read
