"""Sampling: diffusers' schedulers for models of any host, and guidance."""

from __future__ import annotations
