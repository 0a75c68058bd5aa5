"""Envoy and the gateway side by side: the same resources, the same requests, the same upstreams.

A seed makes route tables and request scripts (``generator``). Both proxies take the resources from
one ADS server (``rig``); a client and upstreams that follow a script frame by frame (``client``,
``upstream``, both on the ``h2`` package of python-hyper) record what reached them. What differs
after normalisation must be explained by a difference that ``docs/differences.md`` lists
(``differences``), and each one listed must be seen.
"""
