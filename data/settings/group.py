"""A group of settings: fields of ours, each read from one key of config.yaml.

A field's alias is the key, its default is written as in config.yaml, its description is the key's
meaning in one line. `setting_docs` in `data.settings` turns the three into a table.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class SettingsGroup(BaseModel):
    """Frozen; built by field name in code and tests, by key from config.yaml."""

    model_config = ConfigDict(
        frozen=True, validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )


def setting(key: str, default: Any, description: str, *, secret: bool = False) -> Any:
    """A field read from `key`; `default` in the form that config.yaml has.

    A `secret` one is left out of the repr.
    """
    return Field(
        default=default,
        validate_default=True,
        alias=key,
        description=description,
        repr=not secret,
    )


def required_setting(key: str, description: str, *, secret: bool = False) -> Any:
    """A field without which nothing works."""
    return Field(alias=key, description=description, repr=not secret)
