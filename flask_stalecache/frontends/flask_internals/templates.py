"""Macros of templates, and the variables that templates are rendered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from jinja2 import Environment
from jinja2.runtime import Macro

from .contexts import outer_context
from .steps import takes_context


def home_of_macro(macro: Macro) -> tuple[Environment, str]:
    """Return the environment of a macro and the name of the template in which it is defined."""
    return macro._environment, str(macro._func.__globals__.get("name"))


def around_template_context(app: Flask, step: Callable[[dict[str, Any], Callable[[], None]], None]) -> None:
    """Run a step around the context processors of an app. It gets the variables of a template, and a function that runs them."""
    update_template_context: Any = app.update_template_context

    def update(*args: Any) -> None:
        # Flask 3.1 passes the variables, 3.2 the context of the app and the variables.
        step(args[-1], lambda: update_template_context(*args))

    app.update_template_context = update  # type: ignore[method-assign,assignment]


def update_template_context(app: Flask, variables: dict[str, Any]) -> None:
    """Add what the context processors of an app make to the variables of a template."""
    update: Any = app.update_template_context
    args = (outer_context(), variables) if takes_context("update_template_context") else (variables,)
    update(*args)
