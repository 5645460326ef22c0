"""Workflows made with other packs: their nodes become Tessera's and ComfyUI's, and what has no counterpart is said."""
