"""Requests of hosted image services become workflows: `tessera import` and `tessera params`."""
