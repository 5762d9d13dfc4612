"""Login and members' pages, with Flask-Login as its documentation shows it.

Forms from other sites are rejected by the fields in which browsers state where a form was sent from (``Sec-Fetch-Site``,
``Origin``), not by a token in the session. A token would set a session cookie for every visitor of the login form, and requests
with that cookie bypass the cache. In addition, the session cookie is ``SameSite=Lax``.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask_login import UserMixin, current_user, login_required, login_user, logout_user
from werkzeug.security import check_password_hash
from werkzeug.wrappers import Response

from example_app.extensions import login_manager

bp = Blueprint("auth", __name__)


@dataclass(frozen=True, slots=True)
class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types.
    id: str
    name: str
    password_hash: str
    is_editor: bool = False


_USERS = (
    User(  # password: analytical-engine
        "ada",
        "Ada",
        "scrypt:32768:8:1$SVZpsoi1NWkt138t$6801887c04f29730bd86460fbc6320cc8ce18270dc6caf073f467cd922ac61b1"
        "5252c89ef43f5bc02130740b774dd7e62c4115d84aa7343c2b24e54cab7b18e6",
        is_editor=True,
    ),
    User(  # password: compile-time
        "grace",
        "Grace",
        "scrypt:32768:8:1$cP25g1gxk9t5VAXC$99a1ac33fbbccda4cc49b000409e01e685118e471a4332a128eb97540b5ad63b"
        "9b4d6a75e16f6237ec54d71678b432482eab7f5672617de5e9222c77d1dc1021",
    ),
)
USERS = {user.id: user for user in _USERS}


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load_user(user_id: str) -> User | None:
    return USERS.get(user_id)


def lets_editors_in() -> bool | Response:
    """Return whether the visitor may see the dashboard of the cache: editors may, others are sent to the login form."""
    if not current_user.is_authenticated:
        return redirect(url_for("auth.login", next=request.full_path.rstrip("?")))
    return bool(current_user.is_editor)


@bp.before_request
def refuse_cross_site_forms() -> None:
    """Reject forms from other sites. Clients other than browsers send neither field, and have no cookies to abuse."""
    if request.method != "POST":
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    ours = site in ("same-origin", "none") if site else origin is None or urlsplit(origin).netloc == request.host
    if not ours:
        abort(403)


@bp.route("/login", methods=["GET", "POST"])
def login() -> str | Response | tuple[str, int]:
    if request.method == "GET":
        return render_template("login.html")
    user = USERS.get(request.form.get("username", ""))
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        return render_template("login.html", failed=True), 401
    login_user(user, remember="remember" in request.form)
    return redirect(_local(request.args.get("next", "")) or url_for("news.front"))


@bp.post("/logout")
def logout() -> Response:
    logout_user()
    return redirect(url_for("news.front"))


@bp.get("/members")
@login_required  # type: ignore[untyped-decorator]
def members() -> str:
    """Show the members' page, which is not cached."""
    return render_template("members.html")


def _local(target: str) -> str:
    """Return the target if it stays on this site. Browsers read a backslash as a slash."""
    return target if re.fullmatch(r"/(?![/\\])[^\\\s]*", target) else ""
