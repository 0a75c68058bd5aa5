"""Real Kubernetes control planes on this machine, built from their Go modules.

For the lab's clusters on API servers, and for the tests that want one.
"""
