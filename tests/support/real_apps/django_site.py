"""A Django site behind ``GatewayCache``: signed sessions, languages, CSRF, messages, members, and static files by WhiteNoise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import django
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login as log_in
from django.contrib.auth import logout as log_out
from django.core import signing
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import path
from django.views import View
from whitenoise import WhiteNoise

from flask_stalecache import GatewayCache, Policy
from support.real_apps.flask_sites import WINDOWS
from support.real_apps.walks import Built, RealApp

#: The front: a gateway that can't observe the site, with a rule for all paths.
WSGI = "GatewayCache"
LANGUAGES = [("en", "English"), ("de", "Deutsch"), ("fr", "français")]
BASE = """{% load i18n %}{% get_current_language as code %}<!doctype html><html lang="{{ code }}"><title>{{ title }}</title>
<nav>{% if user.is_authenticated %}hello {{ user.username }}{% else %}<a href="/login">{% translate "Log in" %}</a>{% endif %}</nav>
{% for message in messages %}<p class="flash">{{ message }}</p>{% endfor %}<h1>{{ title }}</h1>{{ text }}
{% if form %}<form method=post>{% csrf_token %}<input name=text></form>{% endif %}</html>"""
PLAIN = "{% load i18n %}{% get_current_language as code %}<html lang='{{ code }}'>{{ title }} {% translate 'Yes' %}</html>"
_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
_PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]


# -- the views -------------------------------------------------------------------------------------------------------


def page(request: HttpRequest, title: str, **more: Any) -> HttpResponse:
    return render(request, "base.html", {"title": title, **more})


def home(request: HttpRequest) -> HttpResponse:
    return page(request, "home")


def article(request: HttpRequest, number: int) -> HttpResponse:
    return page(request, f"article {number}", text="text")


class About(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return render(request, "plain.html", {"title": "about"})


def feed(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"articles": [1, 2]})


def contact(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        messages.info(request, f"Thank you for {request.POST.get('text')}")
        return HttpResponseRedirect("/")
    return page(request, "contact", form=True)


def login(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        log_in(request, _user(request.POST["name"]), backend="django.contrib.auth.backends.ModelBackend")
        messages.info(request, "Welcome back")
        return HttpResponseRedirect("/")
    return page(request, "login", form=True)


def logout(request: HttpRequest) -> HttpResponse:
    log_out(request)
    return HttpResponseRedirect("/")


def speak(request: HttpRequest, code: str) -> HttpResponse:
    """Choose a language, as Django's own ``set_language`` does."""
    response = HttpResponseRedirect("/about")
    response.set_cookie(settings.LANGUAGE_COOKIE_NAME, code)
    return response


def _user(name: str) -> Any:
    from django.contrib.auth.models import User  # Only once Django is set up.

    return User.objects.get_or_create(username=name)[0]


urlpatterns = [
    path("", home),
    path("articles/<int:number>", article),
    path("about", About.as_view()),
    path("feed.json", feed),
    path("contact", contact),
    path("login", login),
    path("logout", logout),
    path("speak/<code>", speak),
]


# -- the site --------------------------------------------------------------------------------------------------------


@cache
def _set_up() -> Any:
    """Set Django up, once in a process, and return the site: all that it knows of its visitors is in their cookies."""
    module = ModuleType("support_real_apps_urls")
    module.urlpatterns = urlpatterns  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    templates = {"base.html": BASE, "plain.html": PLAIN}
    settings.configure(
        SECRET_KEY="not a secret",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=module.__name__,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
        MIDDLEWARE=_MIDDLEWARE,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "sessions")),
        LANGUAGES=LANGUAGES,
        USE_TZ=True,
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "context_processors": _PROCESSORS,
                    "loaders": [("django.template.loaders.locmem.Loader", templates)],
                },
            }
        ],
    )
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    return get_wsgi_application()


def build(front: str | None, folder: Path | None) -> Built:
    """Build the site.

    :param front: :data:`WSGI`; ``None``: without a cache.
    :param folder: the directory of the cache.
    """
    site = WhiteNoise(_set_up())
    site.add_files(str(Path(__file__).parents[2] / "support"), prefix="static/")
    if front is None:
        return Built(site, session_of, site)
    # These two pages do not depend on who is logged in: no session is read, so Django does not name Cookie in Vary. But it reads
    # the cookie of the language, and names the language in a field of each answer.
    by_language = Policy(cookies=["django_language"], **WINDOWS)
    rules = {"/about": by_language, "/feed.json": by_language, "/*": Policy(**WINDOWS)}
    gateway = GatewayCache(site, dir=folder, refresh_workers=0, rules=rules)
    return Built(gateway, session_of, gateway, gateway.stats)


@lru_cache
def session_of(value: str) -> Mapping[str, Any]:
    """Return what is in a session cookie."""
    from django.contrib.sessions.serializers import JSONSerializer  # Only once Django is set up.

    salt = "django.contrib.sessions.backends.signed_cookies"
    return signing.loads(value, serializer=JSONSerializer, salt=salt)  # type: ignore[no-any-return]


DJANGO = RealApp(
    "Django",
    build,
    pages=("/", "/articles/1", "/about", "/articles/2", "/feed.json", "/static/clock.py"),
    forms={"/contact": {"text": "tea"}, "/login": {}},
    languages=("/speak/de", "/speak/fr"),
    token="csrfmiddlewaretoken",
    session_cookie="sessionid",
    user_key="_auth_user_id",
)
