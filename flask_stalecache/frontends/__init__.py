"""The four front ends of the engine, which do not import each other, and what they share.

================== =============================================================================================================
pages              cached views of Flask apps
memoize            fetch functions
gateway            WSGI apps, without entering them at a hit; flask_app observes a Flask app for it
requests_adapter   sessions of ``requests``
================== =============================================================================================================

Below them are what they share: what a request and its response are (request, response, observation), what one app is (app_code,
setup), and the seam to Flask (flask_internals). Above them is what a Flask app adds to several of them (flask_app).

Each has a *handler* (or adapter), where a request arrives; an *origin*, which is what the engine sees; and a *fetch*, which calls
the origin and judges its answer.
"""
