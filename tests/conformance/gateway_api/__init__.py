"""The Gateway API's own conformance suite against a cluster of processes.

``programs`` builds the suite and its servers, ``cluster`` starts what it runs against, ``suite``
runs it and reads what came out, ``__main__`` is the command.
"""
