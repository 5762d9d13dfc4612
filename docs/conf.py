"""Configuration of Sphinx, and the setup of the documentation's examples."""

from importlib.metadata import version as installed_version

project = "flask-stalecache"
copyright = "flask-stalecache contributors"
author = "flask-stalecache contributors"
release = version = installed_version("flask-stalecache")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "py:obj"
highlight_language = "python"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "flask-stalecache"
html_static_path = ["_static"]
html_css_files = ["layout.css"]
html_copy_source = False

# Each group of examples gets an app and a temporary working directory, which also holds the app's instance folder.
doctest_global_setup = """
import logging, os, tempfile

_before, _folder = os.getcwd(), tempfile.TemporaryDirectory()
os.chdir(_folder.name)

from flask import Flask
from flask_stalecache import StaleCache

__name__ = "shop"
app = Flask(__name__)
app.config["STALECACHE_REFRESH_WORKERS"] = 0
cache = StaleCache(app)
logging.getLogger("flask_stalecache").setLevel(logging.CRITICAL)
client = app.test_client(use_cookies=False)

def get(path, **options):
    with client.get(path, **options) as response:
        return response.text, response.headers["X-Cache-Status"]
"""
doctest_global_cleanup = """
os.chdir(_before)
_folder.cleanup()
"""
