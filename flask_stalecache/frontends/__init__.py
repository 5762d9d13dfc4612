"""Where requests and calls arrive: views, fetch functions, WSGI apps and requests sessions."""
