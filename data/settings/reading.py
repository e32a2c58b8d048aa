"""Finds and reads config.yaml, and says what is wrong with it in one sentence.

Quay reads `$QUAYCONF/stack/config.yaml`, then lets variables of the environment have the last word:
QUAY_OVERRIDE_CONFIG (JSON), QUAY_FEATURE_<name> and QUAY_DISTRIBUTED_STORAGE_PREFERENCE. So do we.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from data.errors import SettingsError
from data.settings.group import SettingsGroup

DEFAULT_CONF_DIRECTORY = Path("/quay-registry/conf")
OVERRIDE_VARIABLE = "QUAY_OVERRIDE_CONFIG"
PREFERENCE_VARIABLE = "QUAY_DISTRIBUTED_STORAGE_PREFERENCE"
FEATURE_PREFIX = "QUAY_FEATURE_"
OUR_PREFIX = "RESCAN_"
Group = TypeVar("Group", bound=SettingsGroup)
# What PyYAML's safe loader lets through besides its own errors, on values such as `!!int ""`.
LOADER_ERRORS = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

# What pydantic says by type of error, in the words of somebody who writes YAML.
WORDS = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "should be a smaller whole number",
    "int_type": "should be a whole number",
    "list_type": "should be a list",
    "path_type": "should be the path of a file",
    "string_type": "should be text; put it in quotes",
    "tuple_type": "should be a list",
}


def conf_directory(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Quay's CONF_DIR: $QUAYCONF, else the one that the config file lies in, else the image's."""
    if environ.get("QUAYCONF"):
        return Path(environ["QUAYCONF"])
    if path is not None and path.parent.name == "stack":
        return path.absolute().parent.parent
    if path is None and not DEFAULT_CONF_DIRECTORY.is_dir():
        return Path("conf").absolute()
    return DEFAULT_CONF_DIRECTORY


def read_config(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The keys of config.yaml with the environment's overrides. Raises SettingsError."""
    config = {k: v for k, v in read_yaml(path).items() if isinstance(k, str)}
    config.update(read_override(environ))
    config.update(
        {
            name.removeprefix("QUAY_"): value.strip()
            for name, value in environ.items()
            if name.startswith(FEATURE_PREFIX) and value.strip()
        }
    )
    if environ.get(PREFERENCE_VARIABLE, "").split():
        config["DISTRIBUTED_STORAGE_PREFERENCE"] = environ[PREFERENCE_VARIABLE].split()
    return config


def read_yaml(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is no file name"
        raise SettingsError(
            str(path), f"can't be read ({reason}); name Quay's config.yaml with --config"
        ) from error
    try:
        config = yaml.safe_load(text)
    except LOADER_ERRORS as error:
        # The error's own words quote the file, which holds secrets.
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError(str(path), f"isn't valid YAML{place}; correct it there") from None
    if not isinstance(config, dict):
        raise SettingsError(str(path), "should be a mapping of keys to values, as Quay writes it")
    return config


def read_override(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        override = json.loads(environ.get(OVERRIDE_VARIABLE) or "{}")
    except (ValueError, RecursionError):
        override = None
    if not isinstance(override, dict):
        raise SettingsError(OVERRIDE_VARIABLE, "isn't a JSON object; correct or unset it")
    return override


def refuse_unknown_keys(config: Mapping[str, Any], known: frozenset[str]) -> None:
    """A misspelt key of ours would be a setting without effect."""
    for key in config:
        if not key.upper().startswith(OUR_PREFIX) or key in known:
            continue
        close = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.75)
        mend = f"did you mean {close[0]}?" if close else "see conf/config.sample.yaml"
        raise SettingsError(key[:80], f"is not a setting; {mend}")


def read_group(group: type[Group], config: Mapping[str, Any]) -> Group:
    """The group's keys out of `config`. A null is as good as a key left out."""
    values = {}
    for name, field in group.model_fields.items():
        key = field.alias or name
        if key in config and (config[key] is not None or accepts_null(group, name)):
            values[key] = config[key]
    try:
        return group.model_validate(values)
    except ValidationError as error:
        raise settings_error(error) from None


def accepts_null(group: type[BaseModel], name: str) -> bool:
    return type(None) in get_args(group.model_fields[name].annotation)


def settings_error(error: ValidationError, key: str | None = None) -> SettingsError:
    """The first complaint, by key, in our words. `key` is the setting that the model stands for."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part)[:80] for part in first["loc"]]
    if key is None:
        key = place.pop(0) if place else "config.yaml"
    if first["type"] == "missing" and not place:
        return SettingsError(key, "is missing; take it from Quay's config.yaml")
    if first["type"] == "extra_forbidden":
        return SettingsError(key, f"{place[-1]} is not an option of it; take it out")
    words = WORDS.get(first["type"]) or (
        first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    )
    within = ".".join(place)
    return SettingsError(key, f"{within}: {words}" if within else words)
