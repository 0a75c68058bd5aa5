"""What is made from the code and from one source each: docs/metrics.md, rules and dashboards.

``python -m tests.docs`` (``make docs``) renews all of it; a test fails when something is not as it
would make it.
"""
