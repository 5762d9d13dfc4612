"""Finds the rule for a request at the gateway: like ``location`` of nginx, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from fnmatch import translate
from typing import Any, NamedTuple

from ...config.settings import PREFIX, Settings
from ...core.http.freshness import StaleWindows
from ...core.model.policy import Policy, Windows
from ...core.model.query import NamePatterns, query_in_key
from ...core.remembered import MIB, Remembered
from ...core.rules.named import selectors_of
from ...core.rules.prefer_stale import PreferStale
from ...core.rules.serving import ServeOptions
from ...core.rules.variant_index import Fields
from ...errors import ConfigError

#: Parameters of a policy that a rule can't have, and what to write instead.
_NOT_IN_RULES = {
    "ignore_session": "write @cache.cached(gateway=True, ignore_session=True) on the view",
    "gateway": "every rule is the gateway's: leave it out",
    "key": "name what matters in vary, and what does not in ignored_parameters",
}


class Rule(NamedTuple):
    """The policy for some paths.

    :ivar policy: its callables are called with the WSGI environ, ``response_filter`` with the status and the fields.
    :ivar ignored: the parts of the query that are not part of the key.
    :ivar terms: the serving options.
    :ivar written: the stale windows that are written in the rule itself, not in the configuration.
    :ivar pattern: its pattern; "" for paths without a rule.
    :ivar is_rest: it is for the paths without a rule, while other paths have rules.
    :ivar named: the cookies and values of the session that are always in the key.
    :ivar hides_cookies: the app can't be observed, so it gets only the named cookies if its answer may be stored.
    """

    policy: Policy
    ignored: NamePatterns
    terms: ServeOptions
    written: StaleWindows = (None, None)
    pattern: str = ""
    is_rest: bool = False
    named: Fields = ()
    hides_cookies: bool = False

    @property
    def calls_for_key(self) -> bool:
        """Whether callables of the developer may be called to make the key."""
        return bool(self.named) or any(self.policy.vary.values())

    def showing_errors(self) -> Rule:
        """Return the rule for a client who is shown the app's failures."""
        return self._replace(terms=self.terms._replace(shows_errors=True))


class Rules:
    """The rules of one gateway. The first one that matches applies.

    :param given: pairs of pattern and policy. A pattern that begins with ``/`` matches paths: ``*`` stands for any characters,
        ``?`` for one character and ``[…]`` for one of several. Any other pattern is the name of an endpoint.
    :param base: the policy where neither a response nor its rule sets a window.
    :param ignored: query parameters that are not part of any key.
    :param terms: the serving options where no rule sets others.
    :param preference: how stale responses are served where a rule prefers them.
    :param endpoint_of: returns the endpoint of a request by its environ; ``None`` if the app has none.
    :param check_named: checks a rule's pattern and policy, if it names cookies or values of the session.
    :raises ConfigError: for a pattern or policy that is not accepted.
    """

    def __init__(
        self,
        given: Mapping[str, Policy] | Iterable[tuple[str, Policy]],
        base: Policy,
        ignored: NamePatterns,
        terms: ServeOptions,
        preference: PreferStale,
        endpoint_of: Callable[[Mapping[str, Any]], str | None] | None = None,
        check_named: Callable[[str, Policy], object] = lambda pattern, policy: None,
    ) -> None:
        self._check_named = check_named
        self._base = base
        self._ignored = ignored
        self._terms = terms
        self._preference = preference
        self._endpoint_of = endpoint_of
        pairs = _pairs(given)
        self.plain = Rule(base, ignored, terms, is_rest=bool(pairs))
        self._rules = [(pattern, self._matcher(pattern), self._rule(pattern, policy)) for pattern, policy in pairs]
        self._remembered: Remembered[tuple[str, str, str], Rule] = Remembered(most=1024, limit=MIB, longest=2048)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def check_unset(self, tag_fields: frozenset[str]) -> None:
        """Raise :class:`ConfigError` if a rule unsets a field that lists the tags of its pages.

        :param tag_fields: those fields, in lower case.
        """
        for pattern, _, rule in self._rules:
            if taken := min(rule.policy.unset & tag_fields, default=None):
                raise ConfigError(
                    f"the rule for {pattern!r} has unset with {taken!r}, one of STALECACHE_TAG_FIELDS, by which its pages are "
                    "purged: STALECACHE_SEND_TAG_FIELDS = False keeps these fields from clients"
                )

    def of(self, environ: Mapping[str, Any]) -> Rule:
        """Return the rule for a request."""
        if not self._rules:
            return self.plain
        # With the host, since an endpoint may belong to a subdomain.
        where = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""), environ.get("HTTP_HOST", "")
        rule = self._remembered.get(where)
        if rule is None:
            # The size of the rule is not counted: many paths share it.
            rule = self._remembered.note(where, self._found(where[0] + where[1], environ))
        return rule

    def show_errors(self) -> None:
        """Show the app's failures from now on. ``app.run(debug=True)`` sets the debug mode after the rules were made."""
        self.plain = self.plain.showing_errors()
        self._rules = [(pattern, matcher, rule.showing_errors()) for pattern, matcher, rule in self._rules]
        self._remembered.clear()

    def _found(self, path: str, environ: Mapping[str, Any]) -> Rule:
        endpoint: str | None = None
        for pattern, matcher, rule in self._rules:
            if matcher is not None:
                if matcher.match(path):
                    return rule
                continue
            if endpoint is None:
                assert self._endpoint_of is not None
                endpoint = self._endpoint_of(environ) or ""
            if endpoint == pattern:
                return rule
        return self.plain

    def _matcher(self, pattern: str) -> re.Pattern[str] | None:
        if pattern.startswith("/"):
            # PEP 3333: the environ has the bytes of a path as latin-1.
            return re.compile(translate(pattern.encode().decode("latin-1")))
        if self._endpoint_of is None:
            raise ConfigError(f"rules contain {pattern!r}: give patterns of paths, which begin with '/'; the app has no endpoints")
        return None

    def _rule(self, pattern: str, policy: Policy) -> Rule:
        is_flasks = self._endpoint_of is not None
        if policy.cookies is not None and not policy.cookies and is_flasks:
            raise ConfigError("a rule has cookies=(), which has no effect on a Flask app, whose reads are observed: leave it out")
        if policy.session and not is_flasks:
            raise ConfigError(
                f"the rule for {pattern!r} has session={list(policy.session)}, and GatewayCache() knows nothing of the sessions of "
                "its app: name cookies in cookies=, or write the rule in STALECACHE_GATEWAY of a Flask app"
            )
        if policy.named:
            self._check_named(pattern, policy)
        terms = self._terms._replace(refresh_ahead=policy.refresh_ahead or 0.0)
        if policy.prefer_stale is not None:
            terms = terms._replace(prefer_stale=self._preference if policy.prefer_stale else PreferStale.NO)
        written = policy.stale_while_revalidate, policy.stale_if_error
        windows = ("max_age", "stale_while_revalidate", "stale_if_error")
        given = {name: getattr(self._base if getattr(policy, name) is None else policy, name) for name in windows}
        ignored = (*policy.ignored_parameters.items, *self._ignored.items)
        in_key, hides = query_in_key(ignored, is_sorted=policy.sort_query), policy.cookies is not None and not is_flasks
        return Rule(replace(policy, **given), in_key, terms, written, pattern, named=selectors_of(policy), hides_cookies=hides)


def _pairs(given: Mapping[str, Policy] | Iterable[tuple[str, Policy]]) -> list[tuple[str, Policy]]:
    if isinstance(given, Mapping):
        given = given.items()
    pairs = []
    for item in given:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ConfigError(
                f"rules contain {item!r}: give pairs of a pattern and a Policy, such as ('/news/*', Policy(max_age=60))"
            )
        pattern, policy = item
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"rules contain the pattern {pattern!r}: give a path pattern such as '/news/*', or an endpoint")
        if not isinstance(policy, Policy):
            raise ConfigError(f"the rule for {pattern!r} is {policy!r}: give a Policy, such as Policy(max_age=60)")
        for name, advice in _NOT_IN_RULES.items():
            if getattr(policy, name):
                raise ConfigError(f"the rule for {pattern!r} has {name}, which is not for rules: {advice}")
        if callable(policy.prefer_stale):
            raise ConfigError(f"the rule for {pattern!r} has a callable prefer_stale: give True or False, and rules of their own")
        pairs.append((pattern, policy))
    return pairs


def base_policy(settings: Settings, given: Mapping[str, Any]) -> Policy:
    """Return the policy where neither a response nor a rule sets a window: the windows that were configured, without the defaults.

    In HTTP a response without directives must not be served stale by default (RFC 9111 section 4.2.4): that has to be configured.

    :param given: the configuration, by the names of the keys.
    """
    names = ("max_age", "stale_while_revalidate", "stale_if_error")
    said = {name: getattr(settings, name) for name in names if PREFIX + name.upper() in given}
    return Policy(**said, jitter=None if "max_age" in said else 0)


def default_policy(rule: Policy, coded: Policy, configured: Windows) -> Policy:
    """Return the policy that applies where code and response set no window: the rule's.

    A view with ``gateway=True`` asks to be stored, so the configured windows fill the gaps of its rule.

    :param coded: the policy in code of the view that answered.
    :param configured: the windows of the configuration.
    """
    if not coded.gateway:
        return rule
    return replace(rule, **{name: window for name, window in asdict(configured).items() if getattr(rule, name) is None})
