"""Readers of model files, which name broken downloads; every other reader is built on them."""
