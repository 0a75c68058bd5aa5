"""Control plane of the federation: agent, resolver, discovery, DNS and command line.

Layers, top to bottom (checked by import-linter): ``cli`` > services and ``adapters`` > ``ports`` >
``wire`` > ``derive`` > ``model``. ``model`` and ``derive`` are pure values and functions.
"""
