"""conf/config.sample.yaml and the code name the same keys and the same defaults."""

from __future__ import annotations

from pathlib import Path

import yaml

from data.settings import read_settings, setting_docs
from tests.data.settings.conftest import MINIMUM, Read

SAMPLE = Path(__file__).parents[3] / "conf" / "config.sample.yaml"


def test_the_sample_has_every_key_that_is_read_and_no_other() -> None:
    sample = yaml.safe_load(SAMPLE.read_text())
    assert sorted(sample) == sorted(doc.key for doc in setting_docs())


def test_the_sample_says_the_defaults(read: Read) -> None:
    sample = yaml.safe_load(SAMPLE.read_text())
    assert {doc.key: sample[doc.key] for doc in setting_docs() if doc.required} == MINIMUM
    assert read_settings(SAMPLE, {}) == read()


def test_every_key_says_what_it_means_in_one_line() -> None:
    docs = setting_docs()
    assert len({doc.key for doc in docs}) == len(docs)
    for doc in docs:
        assert doc.meaning.endswith(".")
        assert "\n" not in doc.meaning
