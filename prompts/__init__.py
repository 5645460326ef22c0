"""Prompts written better: by rule, or by a text model on this machine."""
