"""The editors' desk: an editor publishes a changed article, which purges every page that shows it.

An editor can also have the partners called again, or the dashboard recounted. Nobody waits for either.
"""

import re
from dataclasses import replace

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for
from flask_login import current_user, login_required
from werkzeug.wrappers import Response

from example_app.articles import Article, find, publish
from example_app.auth import refuse_cross_site_forms
from example_app.extensions import cache
from example_app.news import COUNTS
from example_app.partners import TAG
from flask_stalecache import StoreError

bp = Blueprint("desk", __name__)
bp.before_request(refuse_cross_site_forms)


@bp.route("/articles/<slug>/edit", methods=["GET", "POST"])
@login_required  # type: ignore[untyped-decorator]
def edit(slug: str) -> str | Response | tuple[str, int]:
    """Show the form, or publish the submitted article."""
    if not current_user.is_editor:
        abort(403)
    article = find(slug)
    if article is None:
        abort(404)
    if request.method == "GET":
        return render_template("edit.html", article=article)
    article = _changed(article)
    if not (article.title and article.summary and article.paragraphs):
        return render_template("edit.html", article=article, problem="Title, summary and text must not be empty."), 400
    publish(article)
    try:
        # Purged last: a page that is built after a purge and before the article is stored for all workers would keep the old
        # article.
        cache.purge(tag=article.tag)
    except StoreError:
        current_app.logger.exception("%s was published, but its pages could not be purged", slug)
        problem = "It is published, but visitors may still get the page from before. Please publish it once more."
        return render_template("edit.html", article=article, problem=problem), 500
    return redirect(url_for("news.article", slug=slug))


@bp.post("/partners")
@login_required  # type: ignore[untyped-decorator]
def ask_partners() -> Response:
    """Refresh the values of all partners: they become stale, so visitors still get them until the new ones are stored."""
    if not current_user.is_editor:
        abort(403)
    cache.purge(tag=TAG, soft=True)
    return redirect(url_for("news.front"))


@bp.post("/counts")
@login_required  # type: ignore[untyped-decorator]
def count_again() -> Response:
    """Have the dashboard recounted: the wall screen still gets the old counts until the new ones are stored."""
    if not current_user.is_editor:
        abort(403)
    cache.purge(tag=COUNTS, soft=True)
    return redirect(url_for("news.dashboard"))


def _changed(article: Article) -> Article:
    """Return the article with the submitted texts."""
    title, summary = (_on_one_line(request.form.get(name, "")) for name in ("title", "summary"))
    paragraphs = map(_on_one_line, re.split(r"\n\s*\n", request.form.get("text", "").replace("\r\n", "\n")))
    return replace(article, title=title, summary=summary, paragraphs=tuple(filter(None, paragraphs)))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
