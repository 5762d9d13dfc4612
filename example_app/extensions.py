"""The extensions of the site, made once and tied to an app in :func:`example_app.create_app`."""

from flask_login import LoginManager

from flask_stalecache import StaleCache

cache = StaleCache()

login_manager = LoginManager()
login_manager.login_view = "auth.login"
# A flashed message would leave a session cookie with every anonymous visitor who tries a members' page, and who carries
# one is served live.
login_manager.login_message = None
