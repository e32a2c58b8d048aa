"""Which rule of RESCAN_POLICY decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.policy import Policy, PolicySettings, decide_policy


def decide(
    policy: dict[str, Any], name: str, *, auto_reset: bool = True, proxied: bool = True
) -> tuple[str, str]:
    namespace, _, repository = name.partition("/")
    decision = decide_policy(
        PolicySettings.model_validate(policy),
        namespace,
        repository,
        auto_reset=auto_reset,
        proxied=proxied,
    )
    return decision.policy.value, decision.rule


def test_everything_proxied_is_immediate_by_default() -> None:
    assert decide({}, "library/nginx") == ("immediate", "default")


def test_default_is_for_proxied_organisations_only() -> None:
    policy = {"default": "cycle", "organizations": {"named": "immediate"}}
    assert decide(policy, "org/app") == ("cycle", "default")
    assert decide(policy, "org/app", proxied=False) == ("off", "not a proxied organisation")
    assert decide(policy, "named/app", proxied=False) == ("immediate", "organizations: named")


def test_auto_reset_false_is_off_whatever_the_rules_say() -> None:
    policy = {"default": "immediate", "repositories": {"org/app": "immediate"}}
    assert decide(policy, "org/app", auto_reset=False) == (
        "off",
        "PROXY_CACHE_AUTO_RESET_SECURITY_STATUS: false",
    )


RULES = {
    "organizations": {
        "team-*": "cycle",
        "team-a-*": "off",
        "team-x": "immediate",
        "archive": "off",
    },
    "repositories": {
        "archive/base": "immediate",
        "archive/base-*": "cycle",
        "archive/b*": "off",
        "*/base": "off",
    },
}


@pytest.mark.parametrize(
    ("name", "policy", "rule"),
    [
        ("team-a/app", "cycle", "organizations: team-*"),
        ("team-a-b/app", "off", "organizations: team-a-*"),
        ("team-x/app", "immediate", "organizations: team-x"),
        ("team-x/base", "off", "repositories: */base"),
        ("archive/app", "off", "organizations: archive"),
        ("archive/base", "immediate", "repositories: archive/base"),
        ("archive/base-1", "cycle", "repositories: archive/base-*"),
        ("archive/base-1/nested", "cycle", "repositories: archive/base-*"),
        ("archive/busybox", "off", "repositories: archive/b*"),
        ("other/x/base", "immediate", "default"),
        ("other/app", "immediate", "default"),
    ],
)
def test_the_most_specific_rule_decides(name: str, policy: str, rule: str) -> None:
    assert decide(RULES, name) == (policy, rule)


@pytest.mark.parametrize(
    ("decides", "loses", "name"),
    [
        ("team", "team*", "team"),  # exact before pattern
        ("ab*", "a?????", "abcdef"),  # the longer literal beginning before the longer pattern
        ("b*a", "b?", "ba"),  # of equal beginnings the longer pattern
    ],
)
def test_of_two_patterns_one_decides(decides: str, loses: str, name: str) -> None:
    for order in ((decides, loses), (loses, decides)):
        rules = {pattern: "off" if pattern == decides else "cycle" for pattern in order}
        assert decide({"organizations": rules}, f"{name}/app") == (
            "off",
            f"organizations: {decides}",
        )


def test_an_organisation_pattern_stays_on_its_side_of_the_slash() -> None:
    assert decide({"repositories": {"a*/c": "off"}}, "ab/x/c") == ("immediate", "default")


def test_case_counts() -> None:
    assert decide({"organizations": {"Team": "off"}}, "team/app") == ("immediate", "default")


def test_a_bare_off_of_yaml_is_off() -> None:
    assert decide({"default": False}, "org/app") == ("off", "default")
    assert decide({"organizations": {"org": False}}, "org/app") == ("off", "organizations: org")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"default": "later"}, "'immediate', 'cycle' or 'off'"),
        ({"default": True}, "'immediate', 'cycle' or 'off'"),
        ({"organisations": {}}, "Extra inputs"),
        ({"organizations": {"org/app": "off"}}, "put it under repositories"),
        ({"repositories": {"app": "off"}}, "should be written organisation/repository"),
        ({"repositories": {"/app": "off"}}, "should be written organisation/repository"),
        ({"organizations": {"": "off"}}, "1 to 512 characters"),
        ({"organizations": {"x" * 513: "off"}}, "1 to 512 characters"),
        ({"organizations": ["org"]}, "valid dictionary"),
    ],
)
def test_a_wrong_rule_is_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicySettings.model_validate(policy)


NAMES = st.text(alphabet="ab-", min_size=1, max_size=4)
PATTERNS = st.text(alphabet="ab-*?[]!", min_size=1, max_size=12) | NAMES


@given(
    patterns=st.dictionaries(PATTERNS, st.sampled_from(Policy), max_size=8),
    repositories=st.dictionaries(
        st.tuples(PATTERNS, PATTERNS).map("/".join), st.sampled_from(Policy), max_size=8
    ),
    namespace=NAMES,
    repository=NAMES,
)
def test_any_rules_decide_and_name_the_rule(
    patterns: dict[str, Policy], repositories: dict[str, Policy], namespace: str, repository: str
) -> None:
    settings = PolicySettings(organizations=patterns, repositories=repositories)
    decision = decide_policy(settings, namespace, repository, auto_reset=True, proxied=True)
    kind, _, rule = decision.rule.partition(": ")
    rules: dict[str, dict[str, Policy]] = {
        "repositories": repositories,
        "organizations": patterns,
        "default": {"": Policy.IMMEDIATE},
    }
    assert decision.policy == rules[kind][rule]
    if f"{namespace}/{repository}" in repositories:
        assert rule == f"{namespace}/{repository}"
