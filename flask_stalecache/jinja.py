"""The template tags ``{% cache %}`` and ``{% hole %}``."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from flask import Flask
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from .core.model.checks import tags as checked_tags
from .core.model.checks import unknown_parameter
from .frontends.flask_internals.contexts import current_flask_app
from .frontends.flask_internals.templates import around_template_context
from .frontends.memoize.fragments import OPTIONS, Tag, answer, note_made
from .frontends.response.template_holes import show_tag

_EXTENSIONS = {"cache": "flask_stalecache.jinja.CacheExtension", "hole": "flask_stalecache.jinja.HoleExtension"}
#: Names with a meaning in Jinja that the body of a tag, rendered on its own, lacks; and what to write for them in a fragment.
_OF_JINJA = {
    "loop": "{% set index = loop.index %} before the tag, and name index in it",
    "caller": "the tag inside of what calls the macro",
    "varargs": "the tag outside of the macro",
    "kwargs": "the tag outside of the macro",
    "super": "the tag in the parent template",
    "self": "the tag in the block itself",
}


def install(app: Flask) -> None:
    """Add the tags to the templates of an app, without creating its environment early: the app may not have set its options yet."""
    if "jinja_env" in vars(app):
        known = {tag for each in app.jinja_env.extensions.values() for tag in each.tags}
        for tag, extension in _EXTENSIONS.items():
            if tag not in known:
                app.jinja_env.add_extension(extension)
    else:
        options: dict[str, Any] = dict(app.jinja_options)
        options["extensions"] = [*options.get("extensions", ()), *_EXTENSIONS.values()]
        app.jinja_options = options
    around_template_context(app, note_made)


class _Written(NamedTuple):
    """The parsed arguments of a ``{% cache %}`` tag.

    :ivar max_age: the expression of the freshness.
    :ivar name: the name of the fragment.
    :ivar vary: the expressions that the fragment is cached by.
    :ivar options: the expressions of the options.
    """

    max_age: nodes.Expr
    name: str
    vary: list[nodes.Expr]
    options: list[nodes.Keyword]


class CacheExtension(Extension):
    """``{% cache max_age, "name", vary… %} … {% endcache %}``: a part of a template that is stored as a value under memoize."""

    tags = {"cache"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the nodes of a tag: a call, and the body as a block that only the call renders."""
        line = next(parser.stream).lineno
        if self.environment.is_async:
            parser.fail("{% cache %} needs an environment without enable_async", line)
        written = _written(parser, line)
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        template = parser.name or "<string>"
        digest = _digest_of(template, body)
        block = f"{_BLOCK}{parser.free_identifier().name}_{digest}"
        names = [f"{block}_{number}" for number in range(len(written.vary))]
        body = _substituted(body, dict(zip(names, written.vary, strict=True)))
        reads = self._reads(parser, line, body)
        called = self.call_method(
            "_answer",
            [
                nodes.DerivedContextReference(),
                nodes.Const((template, written.name, digest, block)),
                nodes.Const(reads),
                nodes.Const(tuple(names)),
                nodes.Const(tuple(map(_label, written.vary))),
                written.max_age,
                nodes.Tuple(written.vary, "load"),
            ],
            written.options,
        )
        return _called_with_block(called, block, body, line)  # type: ignore[return-value]

    def _reads(self, parser: Parser, line: int, body: list[nodes.Node]) -> tuple[str, ...] | None:
        """Return the variables that a body reads; ``None``: it may read all."""
        whole = nodes.Template(body).set_environment(self.environment)
        named = find_undeclared_variables(whole)  # type: ignore[arg-type]
        for name, advice in _OF_JINJA.items():
            if name in named:
                parser.fail(f"{{% cache %}}: a fragment has no {name!r}: write {advice}", line)
        reaches_all = (nodes.Include, nodes.ContextReference, nodes.DerivedContextReference)
        imports: list[Any] = list(whole.find_all((nodes.Import, nodes.FromImport)))
        reaches: list[Any] = list(whole.find_all(reaches_all))
        return None if reaches or any(each.with_context for each in imports) else tuple(sorted(named))

    def _answer(
        self,
        context: Context,
        known: tuple[str, str, str, str],
        reads: tuple[str, ...] | None,
        names: tuple[str, ...],
        labels: tuple[str, ...],
        max_age: Any,
        vary: tuple[Any, ...],
        **options: Any,
    ) -> Any:
        template, name, digest, block = known
        values = dict(zip(names, vary, strict=True))
        tags = checked_tags("tags", options.pop("tags", ()))
        return answer(Tag(context, template, name, digest, block, reads, values, labels, tags), max_age, options)


class HoleExtension(Extension):
    """``{% hole name=value… %} … {% endhole %}``: a part of a cached page that is rendered for each visitor."""

    tags = {"hole"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the nodes of a tag: a call, and the body as a block that only the call renders."""
        line = next(parser.stream).lineno
        if self.environment.is_async:
            parser.fail("{% hole %} needs an environment without enable_async", line)
        if not parser.name:
            parser.fail("{% hole %} is found by the name of its template: put the template into a file", line)
        arguments = _arguments(parser, line)
        body = parser.parse_statements(("name:endhole",), drop_needle=True)
        whole = nodes.Template(body)
        whole.set_environment(self.environment)
        for kind, advice in _NOT_IN_HOLE.items():
            if whole.find(kind) is not None:
                parser.fail(f"{{% hole %}} {advice}", line)
        for inner in whole.find_all(nodes.Block):
            if inner.name.startswith(_HOLE):
                parser.fail("{% hole %} in a hole: the outer one is rendered for each visitor already", line)
            if not inner.name.startswith(_BLOCK):
                parser.fail(
                    "{% hole %} can't hold a block, which another template might override: put the hole into the block", line
                )
        named = _names_read(whole)
        for name in _OF_JINJA:
            if name in named:
                parser.fail(f"{{% hole %}}: a hole has no {name!r}: {_IN_HOLE.get(name, 'write it outside of the hole')}", line)
        block = f"{_HOLE}{parser.free_identifier().name}_{_digest_of(parser.name, body)}"
        names = [each.key for each in arguments]
        called = self.call_method(
            "_show",
            [
                nodes.DerivedContextReference(),
                nodes.Const(f"{parser.name}, line {line}#{block}"),
                nodes.Const(tuple(sorted(named.difference(names)))),
                nodes.Dict([nodes.Pair(nodes.Const(each.key), each.value) for each in arguments]),
            ],
        )
        return _called_with_block(called, block, body, line)  # type: ignore[return-value]

    def _show(self, context: Context, name: str, reads: tuple[str, ...], values: dict[str, Any]) -> str:
        return show_tag(current_flask_app(), context, name, reads, values)


#: Prefixes of the names of blocks: those of the bodies of all tags, and those of the bodies of holes.
_BLOCK = "stalecache_"
_HOLE = f"{_BLOCK}hole_"
_NOT_IN_HOLE: dict[type[nodes.Node], str] = {
    nodes.Extends: "can't hold {% extends %}: a hole is a part of a page",
}
_IN_HOLE = {"loop": "write {% hole index=loop.index %}, and use index in it"}


def _digest_of(template: str, body: list[nodes.Node]) -> str:
    """Return a digest of the body of a tag, so that another body has another name."""
    return sha256(repr((template, body)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _called_with_block(called: nodes.Expr, block: str, body: list[nodes.Node], line: int) -> list[nodes.Node]:
    """Return the nodes of a tag: its call, and its body as a block that only the call renders."""
    # The body's URLs and key don't depend on its place in the template, and its escaping follows the context that renders it.
    given = nodes.Getattr(nodes.Getattr(nodes.ContextReference(), "eval_ctx", "load"), "autoescape", "load")
    escaped = nodes.ScopedEvalContextModifier([nodes.Keyword("autoescape", given)], body)
    never = nodes.If(nodes.Const(False), [nodes.Block(block, [escaped], False, False)], [], [])
    return [nodes.Output([called]).set_lineno(line), never.set_lineno(line)]


def _names_read(body: nodes.Template) -> set[str]:
    """Return the names that a body reads and does not set, including names of globals."""
    names = list(body.find_all(nodes.Name))
    own = {each.name for each in names if each.ctx != "load"}
    return find_undeclared_variables(body) | ({each.name for each in names} - own)


def _arguments(parser: Parser, line: int) -> list[nodes.Keyword]:
    arguments: list[nodes.Keyword] = []
    while parser.stream.current.type != "block_end":
        if arguments:
            parser.stream.skip_if("comma")
        token = parser.stream.current
        if token.type != "name" or parser.stream.look().type != "assign":
            parser.fail("{% hole %}: give what it needs by name, as in {% hole number=article.id %}", line)
        parser.stream.skip(2)
        arguments.append(nodes.Keyword(token.value, parser.parse_expression()))
    return arguments


def _written(parser: Parser, line: int) -> _Written:
    positional: list[nodes.Expr] = [parser.parse_expression()]
    options: list[nodes.Keyword] = []
    while parser.stream.skip_if("comma"):
        token = parser.stream.current
        if token.type == "name" and parser.stream.look().type == "assign":
            parser.stream.skip(2)
            options.append(nodes.Keyword(token.value, parser.parse_expression()))
        else:
            positional.append(parser.parse_expression())
    for option in options:
        if option.key not in OPTIONS:
            parser.fail(unknown_parameter("{% cache %}", option.key, OPTIONS), line)
    max_age = positional[0]
    if max_age == nodes.Const("del"):
        parser.fail(
            '{% cache "del" %}: give the fragment tags=["…"], and write cache.purge(tag="…") where its content changes', line
        )
    name = positional[1] if len(positional) > 1 else nodes.Const(f"line {line}")
    if not isinstance(name, nodes.Const) or not isinstance(name.value, str) or not name.value:
        parser.fail(
            '{% cache %}: the name is a string; write what it is cached by after it: {% cache 300, "name", article.id %}', line
        )
    return _Written(max_age, name.value, positional[2:], options)


def _label(node: nodes.Node) -> str:
    """Return roughly the source text of an expression."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_label(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem):
        return f"{_label(node.node)}[{_label(node.arg)}]"
    if isinstance(node, nodes.Const):
        return repr(node.value)
    return "…"


class _Substitution(NodeTransformer):
    """Replaces expressions by names."""

    def __init__(self, names: list[tuple[nodes.Expr, str]]) -> None:
        self._names = names

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Return a name in place of one of the expressions, or else the node with its children visited."""
        for expression, name in self._names:
            if node == expression:
                return nodes.Name(name, "load", lineno=node.lineno)
        return self.generic_visit(node, *args, **kwargs)


def _substituted(body: list[nodes.Node], values: dict[str, nodes.Expr]) -> list[nodes.Node]:
    """Return the body with names in place of the expressions that the fragment is cached by, for their values at the tag."""
    whole = nodes.Template(body)
    assigned = {each.name for each in whole.find_all(nodes.Name) if each.ctx != "load"}
    names = [
        (expression, name)
        for name, expression in values.items()
        if not isinstance(expression, nodes.Const) and assigned.isdisjoint(_names_in(expression))
    ]
    changed: nodes.Template = _Substitution(names).visit(whole)
    return changed.body


def _names_in(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield node.name
    yield from (each.name for each in node.find_all(nodes.Name))
