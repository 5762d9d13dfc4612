"""The four front ends of the engine, which do not import each other, and what they share.

================== =============================================================================================================
pages              cached views of Flask apps
memoize            fetch functions
gateway            WSGI apps, without entering them at a hit; flask_app observes a Flask app for it
requests_adapter   sessions of ``requests``
================== =============================================================================================================

They share the packages below them: requests and responses (request, response, observation), one app (app_code, setup), and the
seam to Flask (flask_internals). Above them, flask_app connects one Flask app to several of them.

Each front end has a *handler* (or adapter), which receives requests; an *origin*, which the engine calls; and a *fetch*, which
calls the view, function, app or third party and judges its answer.
"""
