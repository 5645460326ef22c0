"""ComfyUI's hooks around blocks of diffusers transformers: those in the place of a block, and those behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

Options = dict[str, Any]
REPLACED, BEHIND = "dit", "double_block"


class _Hooks(NamedTuple):
    """What a block is called with beside its own arguments."""

    options: Options
    number: int
    replacement: Callable[..., Options] | None
    behind: list[Callable[..., Options]]
    image: Tensor


@contextmanager
def hooked_blocks(transformer: Any, options: Options, image: Tensor) -> Iterator[None]:
    """Call the hooks of `transformer_options` around blocks of joint attention, as long as the context lasts.

    Args:
        transformer: its `transformer_blocks` take `hidden_states`, `encoder_hidden_states` and `temb` by name, and
            return text and image.
        options: `transformer_options`.
        image: the latents (B, C, H, W), which hooks behind blocks see.
    """
    blocks = list(transformer.transformer_blocks)
    replacements = options.get("patches_replace", {}).get(REPLACED, {})
    behind = options.get("patches", {}).get(BEHIND, [])
    options = {**options, "total_blocks": len(blocks), "block_type": "double"}
    hooked = [
        (block, _Hooks(options, index, replacements.get(("double_block", index)), behind, image))
        for index, block in enumerate(blocks)
        if behind or ("double_block", index) in replacements
    ]
    try:
        for block, hooks in hooked:
            block.forward = partial(_run, block.forward, hooks)
        yield
    finally:
        for block, _ in hooked:
            vars(block).pop("forward", None)


def _run(
    forward: Callable[..., Any],
    hooks: _Hooks,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    temb: Tensor,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """Return the tokens of text (B, L, D) and of the image (B, N, D) behind a block and its hooks."""

    def original(args: Options) -> Options:
        txt, img = forward(
            hidden_states=args["img"], encoder_hidden_states=args["txt"], temb=args["vec"], **others | _pe(args)
        )
        return {"img": img, "txt": txt}

    hooks.options["block_index"] = hooks.number
    args = {"img": hidden_states, "txt": encoder_hidden_states, "vec": temb, "transformer_options": hooks.options}
    if "image_rotary_emb" in others:
        args["pe"] = others["image_rotary_emb"]
    out = original(args) if hooks.replacement is None else hooks.replacement(args, {"original_block": original})
    for patch in hooks.behind:
        shown = {"x": hooks.image, "block_index": hooks.number, "transformer_options": hooks.options}
        out = patch({"img": out["img"], "txt": out["txt"], **shown})
    return out["txt"], out["img"]


def _pe(args: Options) -> Options:
    return {"image_rotary_emb": args["pe"]} if "pe" in args else {}
