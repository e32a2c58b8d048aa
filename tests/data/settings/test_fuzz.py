"""Whatever stands in config.yaml, the answer is settings or one SettingsError without secrets.

FUZZ_EXAMPLES sets the number of tries (2,000 by default).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import SettingsError
from data.settings import build_settings, read_settings, setting_docs
from tests.data.settings.conftest import MINIMUM

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
MARK = "hunter2"
# Messages name an unknown location, which is no secret.
NAMED = {"DISTRIBUTED_STORAGE_PREFERENCE", "DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS"}

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
keys = st.sampled_from([doc.key for doc in setting_docs()] + ["RESCAN_X", "rescan_", "OTHER"])
WORDS = (
    "host", "port", "db", "ssl", "ssl_cert_reqs", "password", "sentinels", "service_name", "url",
    "engine", "redis_config", "default", "organizations", "repositories", "immediate", "off",
    "LocalStorage", "a/b", "*",
)  # fmt: skip
words = st.sampled_from(WORDS)
urls = st.from_regex(
    r"(redis|rediss|unix|postgresql|mysql\+pymysql|sqlite|https?)://[a-z0-9:@/\[\]?#=%&.]{0,24}",
    fullmatch=True,
)
texts = st.text(max_size=20) | words | urls | st.just("20G") | st.just("127.0.0.1:1")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.binary(max_size=8)
    | texts
    | texts.map(lambda text: text + MARK),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)


@fuzz
@given(st.dictionaries(keys, values, max_size=4))
def test_any_values(config: dict[str, Any]) -> None:
    error = complaint({**MINIMUM, **config})
    if error is not None:
        assert str(error).startswith(f"{error.key}: ")
        assert str(error).isprintable()
        assert error.key in NAMED or MARK not in str(error)


def complaint(config: dict[str, Any]) -> SettingsError | None:
    try:
        build_settings(config, Path("/quay-registry/conf"))
    except SettingsError as error:
        return error
    return None


@settings(fuzz, max_examples=max(1, EXAMPLES // 4))
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.text("[]{}:,-?!&*#|>'\"%@` \n\tab1", max_size=60).map(str.encode)
)
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError):
        read_settings(path, {})
