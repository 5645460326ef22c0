"""Prompt enhancement: by rule, or by a local text model."""
