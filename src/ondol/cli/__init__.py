"""The ``ondol`` command: parses, calls a service, prints.

Owns words on the terminal, exit codes and progress; knows no model library, SQL or HTTP route.
Commands import late, so that ``ondol --help`` is quick.
"""
