"""The gateway: a shared HTTP cache in front of any WSGI app.

A request passes through these modules:

================ ===============================================================================================================
handler          the WSGI entry point: the short way for plain hits, and the choice between the outcomes below
rules, backend   the developer's rules, and the app behind the gateway
origin           the request as the engine sees it: key, variant, serving options
fetch            calls the app (wsgi_call), judges its response, and builds the entry (entry_builder)
deliver          sends stored responses
live_response    sends the app's own responses: whole, in part, or as a 304
bypass           requests that no cache may answer; invalidation purges the pages that unsafe ones may have changed
================ ===============================================================================================================

An ASGI gateway would replace the modules that do I/O (handler, wsgi_call, deliver) and the call of the app in ``AppFetch.run``. It
would keep the modules that decide: rules, backend, entry_builder, ``core.rules.shared_cache``, and the judging half of fetch, whose
steps take values and return an ``Answer``. ``GatewayOrigin`` only passes ``start_response`` through to the call.
"""
