"""A small news site: blueprints, templates, Flask-Login, and a cache."""

import os
from collections.abc import Mapping
from datetime import datetime
from secrets import token_urlsafe
from typing import Any

from flask import Flask, Response

from example_app import auth, desk, news
from example_app.extensions import cache, login_manager


class Defaults:
    """Default settings of the site; times are in seconds."""

    THIRD_PARTY_URL = "http://127.0.0.1:5001/"
    THIRD_PARTY_TIMEOUT = 30
    DASHBOARD_SECONDS = 5
    # Published articles; by default in the instance folder.
    ARTICLES_DIR = None
    SESSION_COOKIE_SAMESITE = "Lax"
    REMEMBER_COOKIE_SAMESITE = "Lax"
    STALECACHE_MAX_AGE = 15
    STALECACHE_STALE_WHILE_REVALIDATE = 600
    STALECACHE_STALE_IF_ERROR = 86400
    STALECACHE_PREFER_STALE_HEADER = "X-Prefer-Stale"


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Create the site.

    :param config: settings that take precedence over the environment, where a variable ``NEWS_<KEY>`` sets ``<KEY>``
        (``NEWS_THIRD_PARTY_URL``, ``NEWS_STALECACHE_MAX_AGE``), and over :class:`Defaults`.
    """
    app = Flask(__name__)
    app.config.from_object(Defaults)
    app.config.from_prefixed_env("NEWS")
    app.config.from_mapping(config or {})
    if not app.config["SECRET_KEY"]:
        # Logins end with the process, and several workers need NEWS_SECRET_KEY. That is better than a key that everyone knows.
        app.config["SECRET_KEY"] = token_urlsafe()
    cache.init_app(app)
    login_manager.init_app(app)
    app.register_blueprint(news.bp)
    app.register_blueprint(auth.bp)
    app.register_blueprint(desk.bp)
    app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=auth.lets_editors_in)
    app.add_template_global(datetime.now, "now")
    app.after_request(tell_worker)
    return app


def tell_worker(response: Response) -> Response:
    """Add a field with the id of the process that responds. Hooks run for hits too, and the fields that they add are not stored."""
    response.headers["X-Worker"] = str(os.getpid())
    return response
