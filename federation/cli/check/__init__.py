"""``fedctl check``: pre-flight and health of a federation."""
