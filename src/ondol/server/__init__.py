"""The HTTP server: routes over services, and everything a request meets on its way to one."""
