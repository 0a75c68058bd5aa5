"""``fedctl kind``: the federation in two kind clusters on this machine, installed as elsewhere."""
