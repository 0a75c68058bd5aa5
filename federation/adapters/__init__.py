"""Implementations of the ports; ``cli`` alone chooses among them."""
