"""Fragments of templates: the part between ``{% cache %}`` and ``{% endcache %}`` is a value under memoize.

A fragment is shared by all visitors of the same key: template, name, the values named in the tag, and what its URLs depend on
(:mod:`.places`). So it is rendered without the request, with the variables of the template as they were at the tag, except these:

============================================  ==========================================================================
variable                                      in the fragment
============================================  ==========================================================================
``request``, ``session``, ``g``               an error that says what to write
made by a context processor                   what the processor makes without a request; an error if it makes nothing
the same object as one of those, or in ``g``  an error
a macro of a template with a context          an error: it may show any of those
============================================  ==========================================================================

An expression that is named in the tag keeps the value that it has there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

from flask import Flask
from jinja2 import StrictUndefined, Undefined
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, Macro
from markupsafe import Markup

from ...core.model.policy import Policy
from ...core.rules import cacheability
from ...errors import ConfigError, StaleCacheError, UnkeyableArgument
from ..flask_internals.contexts import current_flask_app, is_empty_proxy
from ..flask_internals.templates import home_of_macro
from ..response.template_holes import MADE, WITHIN
from ..setup.current_app import cache_of_current_app
from .arguments import canonical
from .bound_function import FetchFunction
from .places import BLUEPRINT, observed_adapter
from .policy import CallPolicy
from .serializers import is_immutable

_VISITORS = ("request", "session", "g")
#: The options of the tag.
OPTIONS = ("stale_while_revalidate", "stale_if_error", "tags", "refresh_ahead", "jitter", "lock_timeout", "inherit")
#: The most fragments in a process, counted once for each set of options. Any others are rendered live.
MOST = 1000
#: A list or dict with more values is not kept for the time after the request.
_LARGEST = 500


@dataclass(frozen=True, slots=True, eq=False)
class Tag:
    """One execution of a tag.

    :param context: the variables at the tag.
    :param template: the name of the template.
    :param name: the name of the fragment.
    :param digest: the digest of its body, so that another body is another fragment.
    :param block: the name under which its body was compiled.
    :param reads: the variables that the body reads; ``None``: it may read all.
    :param values: the values named in the tag, by the names that the body has for them.
    :param labels: the expressions named in the tag.
    :param tags: names by which the fragment is purged.
    """

    context: Context
    template: str
    name: str
    digest: str
    block: str
    reads: tuple[str, ...] | None
    values: Mapping[str, Any]
    labels: tuple[str, ...]
    tags: Any

    @property
    def label(self) -> str:
        """Its name in logs."""
        return f"{self.template}#{self.name}"

    def check(self) -> None:
        """Raise :class:`StaleCacheError` if a value named in the tag is undefined: all visitors would share one fragment."""
        for label, value in zip(self.labels, self.values.values(), strict=True):
            if isinstance(value, Undefined):
                raise StaleCacheError(f"the fragment {self.label} is cached by `{label}`, which is undefined: give it a value")

    def render(self, changed: Mapping[str, Any]) -> Any:
        """Render the body.

        :param changed: the variables that differ from those at the tag.
        """
        context = self.context
        own = Context(
            context.environment,
            {**context.get_all(), **changed, **self.values},
            context.name,
            {},
            dict.fromkeys(context.globals_keys),
        )
        own.blocks = context.blocks
        own.eval_ctx.autoescape = context.eval_ctx.autoescape
        text = context.environment.concat(context.blocks[self.block][0](own))
        return Markup(text) if own.eval_ctx.autoescape else text


def answer(tag: Tag, max_age: Any, options: Mapping[str, Any]) -> Any:
    """Return the text of a fragment.

    :param max_age: seconds for which it is fresh; ``None``: as configured.
    :raises StaleCacheError: if a value named in the tag is undefined, or the body reads data that only the visitor has.
    :raises UnkeyableArgument: if a value named in the tag has no canonical form.
    """
    tag.check()
    cache = cache_of_current_app()
    definition = None if cache is None or cache.calls is None else _definition(tag.label, max_age, options)
    if cache is None or definition is None:
        return tag.render({})
    try:
        return cache.calls.answer(definition, (tag,), {}, waits=not _is_kept(tag))
    except UnkeyableArgument:
        for label, value in zip(tag.labels, tag.values.values(), strict=True):
            _check_key(tag, label, value)
        raise


def _check_key(tag: Tag, label: str, value: object) -> None:
    try:
        canonical(value, label, tag.label)
    except UnkeyableArgument:
        raise UnkeyableArgument(
            f"the fragment {tag.label} is cached by `{label}`, a {type(value).__qualname__}, which has no canonical form: "
            "name plain values that tell it, such as its id"
        ) from None


def _key_of(tag: Any) -> tuple[Any, ...]:
    return (tag.template, tag.name, tag.digest, tag.context.eval_ctx.autoescape, tuple(tag.values.values()))


def _fragment(tag: Any) -> Any:
    """Render a fragment for everybody. Only the caller has the tag, so the recipe is incomplete."""
    cacheability.tag(*tag.tags)
    return tag.render({**_for_everybody(current_flask_app(), tag), WITHIN: True})


_definitions: dict[tuple[object, ...], FetchFunction] = {}


def _definition(label: str, max_age: Any, options: Mapping[str, Any]) -> FetchFunction | None:
    """Return a fragment as a fetch function; ``None`` if there are too many."""
    chosen = (label, max_age, *(options.get(name) for name in OPTIONS if name != "tags"))
    try:
        known = _definitions.get(chosen)
    except TypeError:
        raise ConfigError(f"{{% cache %}} of {label}: give durations and shares as numbers") from None
    if known is not None or len(_definitions) >= MOST:
        return known
    inherit = options.get("inherit", True)
    windows: dict[str, Any] = {name: options[name] for name in OPTIONS if name in options and name not in ("tags", "inherit")}
    # A callable key, since every hit needs the key, and binding the arguments to a signature costs several times as much.
    windows["key"] = _key_of
    policy = CallPolicy(windows=Policy(max_age=max_age, **windows), inherit=inherit)
    return _definitions.setdefault(chosen, FetchFunction(_fragment, policy, label))


# -- variables ---------------------------------------------------------------------------------------------------------


def note_made(context: dict[str, Any], update: Callable[[], None]) -> None:
    """Let context processors update the variables of a template, and note in the variables which ones are new.

    :param context: the variables.
    :param update: updates them.
    """
    given = frozenset(context)
    update()
    context[MADE] = {name: value for name, value in context.items() if name not in given}


def _for_everybody(app: Flask, tag: Tag) -> dict[str, Any]:
    """Return the variables that have another value in a fragment than in its template."""
    variables = tag.context.get_all()
    if WITHIN in variables:
        # The fragment is in another one, whose variables are for everybody.
        return {}
    noted: Mapping[str, Any] = variables.get(MADE) or {}
    # A loop or {% set %} may have given the name another value.
    made = {name: value for name, value in noted.items() if variables.get(name) is value and name not in _VISITORS}
    changed: dict[str, Any] = {name: _VisitorsValue.of(tag, name) for name in _VISITORS}
    if made and (tag.reads is None or not made.keys().isdisjoint(tag.reads)):
        shared = _made_without_request(app)
        for name, value in made.items():
            # An empty proxy stands for a value that needs the request.
            is_made = (shared.get(name) is not None and not is_empty_proxy(shared[name])) or (name in shared and value is None)
            changed[name] = shared[name] if is_made else _VisitorsValue.of(tag, name)
    kept = getattr(noted.get("g"), "__dict__", {}).values()
    theirs = {id(value) for value in (*noted.values(), *kept) if not isinstance(value, FunctionType) and not is_immutable(value)}
    others = {name: value for name, value in variables.items() if name not in changed and name != MADE}
    for name, value in others.items():
        if (id(value) in theirs or _is_bound_to_visitor(value)) and not _is_global(tag.context, name, value):
            changed[name] = _VisitorsValue.of(tag, name)
    return changed


def _is_global(context: Context, name: str, value: object) -> bool:
    return context.environment.globals.get(name) is value


def _made_without_request(app: Flask) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in (None, *_blueprints_with_processors(app)):
        for processor in app.template_context_processors.get(name, ()):
            try:
                made.update(app.ensure_sync(processor)())
            except Exception:
                # It needs the request, so its variables are the visitor's: to read one in the fragment is an error.
                continue
    return made


def _blueprints_with_processors(app: Flask) -> list[str]:
    """Return the blueprint of the page and those around it, the outermost first, if blueprints have context processors."""
    urls = observed_adapter(app)
    if urls is None or app.template_context_processors.keys() <= {None}:
        return []
    urls.note((BLUEPRINT,))
    parts = urls.place.blueprint.split(".")
    return [".".join(parts[: number + 1]) for number in range(len(parts))]


def _is_bound_to_visitor(value: Any) -> bool:
    """Whether a value may show data that only the visitor has."""
    if isinstance(value, Macro):
        return not _is_of_shared_module(value)
    if type(value) is TemplateModule:
        return any(isinstance(each, Macro) and not _is_of_shared_module(each) for each in vars(value).values())
    return is_empty_proxy(value)


def _is_of_shared_module(macro: Macro) -> bool:
    """Whether a macro was imported without context, so that it sees no variables of a template but its arguments."""
    environment, name = home_of_macro(macro)
    try:
        module = environment.get_template(name).module
    except Exception:
        return False
    return vars(module).get(macro.name) is macro


class _VisitorsValue(StrictUndefined):
    """Stands for a variable that only the visitor has. Its use in a fragment raises an error that says what to write instead."""

    @classmethod
    def of(cls, tag: Tag, name: str) -> _VisitorsValue:
        """Return the stand-in for a variable."""
        what = f"what it needs of {name}" if name in _VISITORS else f"`{name}`, or what it needs of it"
        return cls(
            f"the fragment {tag.label} uses {name}, which may be the visitor's, and what a fragment shows is for everybody: name "
            f"{what}, after the name of the fragment, as in {{% cache 300, {tag.name!r}, {_EXAMPLES.get(name, name + '.id')} %}}",
            name=name,
            exc=StaleCacheError,  # type: ignore[arg-type]
        )


_EXAMPLES = {"request": "request.args.page", "session": "session.language", "g": "g.language"}


# -- values that are kept for the time after the request ---------------------------------------------------------------


def _is_kept(tag: Tag) -> bool:
    """Whether a fragment can be rendered after the request: its values neither belong to the request nor change."""
    variables = tag.context.get_all()
    names = [name for name in variables if name != MADE] if tag.reads is None else tag.reads
    noted: Mapping[str, Any] = variables.get(MADE) or {}
    for name in names:
        value = variables.get(name)
        if name not in noted and not _is_global(tag.context, name, value) and not _is_plain(value, [_LARGEST]):
            return False
    return all(_is_plain(value, [_LARGEST]) for value in tag.values.values())


def _is_plain(value: Any, left: list[int]) -> bool:
    """Whether a value consists of plain data and functions.

    :param left: how many more values may be checked: a list with one number, which is counted down.
    """
    left[0] -= 1
    if left[0] < 0:
        return False
    if type(value) in (list, tuple, set, frozenset):
        return all(_is_plain(each, left) for each in value)
    if type(value) is dict:
        return all(_is_plain(each, left) for pair in value.items() for each in pair)
    if isinstance(value, FunctionType):
        return value.__closure__ is None
    return is_immutable(value) or isinstance(value, (BuiltinFunctionType, Macro, TemplateModule, Undefined))
