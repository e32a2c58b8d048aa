"""Which organisation or repository is rescanned, and how: RESCAN_POLICY.

    RESCAN_POLICY:
      default: immediate
      organizations: {"team-*": cycle, archive: off}
      repositories: {archive/base: immediate}

The most specific rule decides: one for the repository before one for the organisation, an exact
name before a pattern, the longer literal beginning before the shorter. `default` is for proxied
organisations that no rule names; a rule holds for any organisation that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

AUTO_RESET_KEY = "PROXY_CACHE_AUTO_RESET_SECURITY_STATUS"
GLOB_CHARACTERS = re.compile(r"[*?\[]")
LONGEST_PATTERN = 512


class Policy(StrEnum):
    """What happens to a manifest whose last blob was placed."""

    IMMEDIATE = "immediate"  # reset and index at once
    CYCLE = "cycle"  # reset; the security worker's next cycle indexes it
    OFF = "off"  # leave it as it is


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The policy, and the rule that decided, in the words of config.yaml."""

    policy: Policy
    rule: str


def yaml_off(value: Any) -> Any:
    """YAML 1.1 reads a bare `off` as false."""
    return Policy.OFF if value is False else value


def check_organizations(rules: Mapping[str, Policy]) -> Mapping[str, Policy]:
    for pattern in rules:
        if "/" in pattern:
            raise ValueError(f"{pattern[:80]!r} has a slash; put it under repositories")
    return check_patterns(rules)


def check_repositories(rules: Mapping[str, Policy]) -> Mapping[str, Policy]:
    for pattern in rules:
        organization, slash, repository = pattern.partition("/")
        if not (organization and slash and repository):
            raise ValueError(f"{pattern[:80]!r} should be written organisation/repository")
    return check_patterns(rules)


def check_patterns(rules: Mapping[str, Policy]) -> Mapping[str, Policy]:
    if any(not 0 < len(pattern) <= LONGEST_PATTERN for pattern in rules):
        raise ValueError(f"patterns should have 1 to {LONGEST_PATTERN} characters")
    return rules


PolicyName = Annotated[Policy, BeforeValidator(yaml_off)]


class PolicySettings(BaseModel):
    """RESCAN_POLICY. Patterns take `*`, `?` and `[...]`; case counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    default: PolicyName = Policy.IMMEDIATE
    organizations: Annotated[Mapping[str, PolicyName], AfterValidator(check_organizations)] = {}
    repositories: Annotated[Mapping[str, PolicyName], AfterValidator(check_repositories)] = {}


def decide_policy(
    settings: PolicySettings, namespace: str, repository: str, *, auto_reset: bool, proxied: bool
) -> PolicyDecision:
    """What to do with manifests of `namespace/repository` on an event or in the sweep.

    `auto_reset` is PROXY_CACHE_AUTO_RESET_SECURITY_STATUS; false is off for everything here. A
    manual request doesn't ask this function: it is carried out whatever the policy.
    """
    if not auto_reset:
        return PolicyDecision(Policy.OFF, f"{AUTO_RESET_KEY}: false")
    rule = most_specific(settings.repositories, f"{namespace}/{repository}")
    if rule is not None:
        return PolicyDecision(settings.repositories[rule], f"repositories: {rule}")
    rule = most_specific(settings.organizations, namespace)
    if rule is not None:
        return PolicyDecision(settings.organizations[rule], f"organizations: {rule}")
    if not proxied:
        return PolicyDecision(Policy.OFF, "not a proxied organisation")
    return PolicyDecision(settings.default, "default")


def most_specific(rules: Mapping[str, Policy], name: str) -> str | None:
    """The pattern that fits `name` best, None when none fits."""
    return max((p for p in rules if fits(p, name)), key=specificity, default=None)


def fits(pattern: str, name: str) -> bool:
    """An organisation's part of a pattern never reaches over the slash; a repository's may."""
    organization, _, repository = pattern.partition("/")
    namespace, _, rest = name.partition("/")
    return fnmatchcase(namespace, organization) and fnmatchcase(rest, repository)


def specificity(pattern: str) -> tuple[bool, int, int, str]:
    """Larger for the pattern that says more; the pattern itself settles what is left."""
    glob = GLOB_CHARACTERS.search(pattern)
    literal = len(pattern) if glob is None else glob.start()
    return (glob is None, literal, len(pattern), pattern)
