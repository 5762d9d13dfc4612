"""Renders the bodies of ``{% hole %}`` tags for each visitor in a fresh context. They are found by template and block.

A body sees its own arguments, the globals of the templates, and the variables of context processors. It can't see variables that
only the page has, since a hit runs no view. Using one is an error when the page is rendered, whether the page is cached or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask
from jinja2 import Template, TemplateNotFound
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, Macro
from markupsafe import Markup

from ...core.model.holes import HoleCall, why_not_json
from ...errors import StaleCacheError
from ..flask_internals.contexts import request_or_none
from ..flask_internals.templates import update_template_context
from .holes import mark_of

#: In the context of a template: the variables that context processors have made.
MADE = "_stalecache_made"
#: Set in the context of a cached fragment.
WITHIN = "_stalecache_within"


def template_holes(app: Flask) -> Callable[[HoleCall], Callable[[], str] | None]:
    """Return a function that finds the renderer of a hole in the templates of an app."""
    return partial(_rendering, app)


def _rendering(app: Flask, call: HoleCall) -> Callable[[], str] | None:
    label, separator, block = call.name.partition("#")
    if not separator:
        return None
    try:
        template = app.jinja_env.get_template(label.rpartition(", line ")[0])
    except TemplateNotFound:
        return None
    # The name of a block has a digest of its body, so an old page does not find another body.
    return partial(render, app, template, block, call.kwargs) if block in template.blocks else None


def render(app: Flask, template: Template, block: str, values: Mapping[str, Any]) -> str:
    """Return the body of a hole for the current visitor."""
    variables = dict(values)
    update_template_context(app, variables)
    context = template.new_context(variables)
    text = template.environment.concat(template.blocks[block](context))
    return Markup(text) if context.eval_ctx.autoescape else text


def show_tag(app: Flask, context: Context, name: str, reads: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """Return what a tag shows: a mark, or its body.

    :param context: the variables at the tag.
    :param name: the name of the hole.
    :param reads: the names in its body which are not its arguments.
    :param values: its arguments.
    :raises StaleCacheError: if the body needs a variable that only the page has.
    """
    call = HoleCall(name, (), dict(values))
    _check(context, call, reads)
    mark = mark_of(call)
    if mark is not None:
        return Markup(mark.__html__()) if context.eval_ctx.autoescape else mark
    rendering = _rendering(app, call)
    if rendering is None:
        raise StaleCacheError(f"the hole in {call.label} can't be rendered by itself: its template is not found by its name")
    return rendering()


def _check(context: Context, call: HoleCall, reads: tuple[str, ...]) -> None:
    variables = context.get_all()
    if WITHIN in variables:
        raise StaleCacheError(
            f"the hole in {call.label} is in a fragment under {{% cache %}}, which is everybody's: end that first"
        )
    if request_or_none() is None:
        raise StaleCacheError(f"the hole in {call.label} needs a request: it shows what is a visitor's")
    for name, value in call.kwargs.items():
        if why := why_not_json(value):
            raise StaleCacheError(
                f"the hole in {call.label} was given {name}, {why}, and what it is given is stored with the page: give it JSON "
                "values, such as an id"
            )
    made: Mapping[str, Any] = variables.get(MADE) or {}
    for name in reads:
        if name not in variables:
            continue
        value = variables[name]
        is_known = (name in made and made[name] is value) or context.environment.globals.get(name) is value
        if not is_known:
            raise StaleCacheError(f"the hole in {call.label} shows `{name}`, which only this page has: {_advice(name, value)}")


def _advice(name: str, value: object) -> str:
    if isinstance(value, (Macro, TemplateModule)):
        return "import it in the hole"
    return f"write {{% hole {name}={name} %}}, and give it JSON values, such as an id"
