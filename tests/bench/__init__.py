"""Figures: CPU per call beside peers, and propagation through the lab."""
