"""Attacks on a standalone gateway while a well-behaved client measures its calls."""
