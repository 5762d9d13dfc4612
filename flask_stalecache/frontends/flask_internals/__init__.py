"""The one seam to Flask and Werkzeug: every private or version-dependent name of theirs that we use.

Supports Flask 3.1, and Flask 3.2 as developed, which differs in:

====================  ======================================  =====================================================
what                  Flask 3.1                               Flask 3.2
====================  ======================================  =====================================================
request's context     ``RequestContext`` in ``_cv_request``   merged into ``AppContext``, in ``_cv_app``
no request            no context in ``_cv_request``           a context whose ``request`` raises ``RuntimeError``
session               opened when the context is pushed       opened by ``_get_session()``
methods of the app    ``process_response(response)``          ``process_response(ctx, response)``, and others likewise
====================  ======================================  =====================================================

:func:`.versions.check_versions` is called at start-up, so that a version that lacks a name fails there and not in a request.
"""
