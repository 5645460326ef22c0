"""What changes nothing in an image, because its strength is 0 or it ends before it begins, is not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..bodies.parameters import NO_EFFECT
from .control_networks import ROLES as CONTROL_ROLES
from .cuts import PROMPT_ROLES
from .recipe import Recipe

PAINTED = ("sampler", "positive", "negative", "mask", "lora", "guidance", "clip skip", "token merging")
"""Roles that only act on an image that is painted."""


def leave_out(recipe: Recipe) -> None:
    """Take such parts out of a recipe, and say so where nothing is left of a kind."""
    prompts = [each for each in recipe.image_prompts if each.scale]
    guides = [each for each in recipe.guides if each.strength and each.start < each.end]
    loras = [(name, strength) for name, strength in recipe.loras if strength]
    _tell(recipe, PROMPT_ROLES, recipe.image_prompts, prompts, "a scale of 0 changes nothing")
    _tell(recipe, CONTROL_ROLES, recipe.guides, guides, "a strength or a share of the steps of 0 changes nothing")
    _tell(recipe, ("lora",), recipe.loras, loras, "a strength of 0 changes nothing")
    recipe.image_prompts, recipe.guides, recipe.loras = prompts, guides, loras
    if recipe.init_image and not recipe.strength:
        recipe.mask, recipe.enhance = None, False
        recipe.missing |= dict.fromkeys(PAINTED, (NO_EFFECT, "a strength of 0 keeps the image as it is"))


def _tell(recipe: Recipe, roles: tuple[str, ...], found: Sequence[Any], kept: Sequence[Any], why: str) -> None:
    if found and not kept:
        recipe.missing |= dict.fromkeys(roles, (NO_EFFECT, f"left out: {why}"))
    elif len(kept) < len(found):
        recipe.remarks[roles[-1]] = f"{len(found) - len(kept)} of {len(found)} left out: {why}"
