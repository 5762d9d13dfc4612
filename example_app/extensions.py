"""The extensions of the site. :func:`example_app.create_app` adds them to an app."""

from flask_login import LoginManager

from flask_stalecache import StaleCache

cache = StaleCache()

login_manager = LoginManager()
login_manager.login_view = "auth.login"
# A flashed message would set a session cookie for every anonymous visitor of a members' page, and requests with that cookie bypass
# the cache.
login_manager.login_message = None
