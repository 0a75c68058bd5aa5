"""The composition root: ``fedctl`` parses, builds settings, wires ports to adapters, and runs."""
