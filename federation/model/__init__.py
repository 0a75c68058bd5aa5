"""What the federation is about: frozen values with their invariants."""
