"""A diffusers Flux transformer with ComfyUI's hooks.

Drop-in replacement for `comfy.ldm.flux.model.Flux.forward_orig`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .attention_hooks import optimized_attention

Options = dict[str, Any]
PATCHES = {"post_input", "attn1_patch", "attn1_output_patch"}
REPLACED = {"dit"}


def unknown_patches(options: Options) -> list[str]:
    """Return the hooks into blocks that are not known here."""
    return sorted({*options.get("patches", {})} - PATCHES | {*options.get("patches_replace", {})} - REPLACED)


class HookedAttention:
    """Attention of a diffusers Flux block as its own processor computes it, with the hooks of `transformer_options`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        transformer_options: Options | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend among tokens (B, N, D) of the image, or of all where no text (B, L, D) is beside them."""
        parts = (layer(hidden_states) for layer in (attn.to_q, attn.to_k, attn.to_v))
        q, k, v = _normed(parts, attn, (attn.norm_q, attn.norm_k))
        if encoder_hidden_states is not None:
            parts = (layer(encoder_hidden_states) for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
            text = _normed(parts, attn, (attn.norm_added_q, attn.norm_added_k))
            q, k, v = (torch.cat(pair, 2) for pair in zip(text, (q, k, v), strict=True))
        output = attend(q, k, v, attn, image_rotary_emb, attention_mask, transformer_options or {})
        if encoder_hidden_states is None:
            return output
        length = encoder_hidden_states.shape[1]
        return attn.to_out[0](output[:, length:]), attn.to_add_out(output[:, :length])


class HookedParallelAttention:
    """Attention of a single block of Flux.2, beside which its feed-forward layer runs."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        transformer_options: Options | None = None,
    ) -> Tensor:
        """Attend among the tokens (B, N, D) of text and image."""
        parts = attn.to_qkv_mlp_proj(hidden_states)
        parts, hidden = parts[..., : 3 * attn.inner_dim], parts[..., 3 * attn.inner_dim :]
        q, k, v = _normed(parts.chunk(3, -1), attn, (attn.norm_q, attn.norm_k))
        output = attend(q, k, v, attn, image_rotary_emb, attention_mask, transformer_options or {})
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(hidden)], -1))


def attend(q: Tensor, k: Tensor, v: Tensor, attn: Any, pe: Any, mask: Tensor | None, options: Options) -> Tensor:
    """Return attention (B, N, D) of normed queries, keys and values (B, H, N, D), which are rotated here."""
    from diffusers.models.embeddings import apply_rotary_emb

    patches = options.get("patches", {})
    for patch in patches.get("attn1_patch", []):
        out = patch(q, k, v, pe=pe, attn_mask=mask, extra_options=dict(options))
        q, k, v, pe, mask = (
            out.get(name, value)
            for name, value in zip(("q", "k", "v", "pe", "attn_mask"), (q, k, v, pe, mask), strict=True)
        )
    if pe is not None:
        rotate: Any = apply_rotary_emb
        q, k = (rotate(each, _first(pe, each.shape[2]), sequence_dim=2) for each in (q, k))
    output = _attend(q, k, v, attn.heads, mask, options)
    for patch in patches.get("attn1_output_patch", []):
        output = patch(output, dict(options))
    return output


def _first(pe: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Return rotations of the first tokens: hooks may have left out others of the queries."""
    return pe[0][:count], pe[1][:count]


def _normed(parts: Iterable[Tensor], attn: Any, norms: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Return normed q and k, and v, each (B, H, N, D), of (B, N, H D)."""
    q, k, v = (part.unflatten(-1, (-1, attn.head_dim)).transpose(1, 2) for part in parts)
    return norms[0](q), norms[1](k), v


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None, options: Options) -> Tensor:
    keywords = {"mask": mask, "skip_reshape": True, "transformer_options": options}
    override = options.get("optimized_attention_override")
    if override is None:
        return optimized_attention(q, k, v, heads, **keywords)
    return override(optimized_attention, q, k, v, heads, **keywords)


class FluxCalls:
    """How diffusers' FluxTransformer2DModel is modulated, and how its blocks are called."""

    def vectors(self, transformer: Any, timestep: Tensor, guidance: Tensor | None, y: Tensor | None) -> Any:
        """Return what modulates blocks, here (B, D), of a time 0..1 (B,), guidance (B,) and a pooled text (B, P)."""
        config = transformer.config
        y = timestep.new_zeros(len(timestep), config.pooled_projection_dim) if y is None else y
        numbers = (timestep, guidance) if config.guidance_embeds and guidance is not None else (timestep,)
        embed = transformer.time_text_embed
        return embed(*(1000 * number for number in numbers), y[:, : config.pooled_projection_dim])

    def vector(self, vectors: Any, kind: str, index: int = 0) -> Tensor:
        """Return the part of `vectors` that belongs to a block; `kind` is "double", "single" or "final"."""
        return vectors

    def double(self, block: Any, args: Options) -> tuple[Tensor, Tensor]:
        """Return the tokens of text (B, L, D) and image (B, N, D) behind a double block."""
        return block(args["img"], args["txt"], args["vec"], args["pe"], block_keywords(args))

    def single(self, block: Any, args: Options, text: int) -> Tensor:
        """Return the tokens of both (B, L + N, D) behind a single block."""
        txt, img = args["img"][:, :text], args["img"][:, text:]
        return torch.cat(block(img, txt, args["vec"], args["pe"], block_keywords(args)), 1)


def forward_flux(
    transformer: Any,
    calls: FluxCalls,
    img: Tensor,
    img_ids: Tensor,
    txt: Tensor,
    timestep: Tensor,
    y: Tensor | None,
    guidance: Tensor | None,
    control: dict[str, list[Tensor | None]] | None,
    attn_mask: Tensor | None,
    options: Options,
    txt_ids: Tensor | None = None,
) -> Tensor:
    """Call the transformer once.

    Args:
        transformer: diffusers' FluxTransformer2DModel with `HookedAttention` as its processors.
        calls: how it is called.
        img: tokens of the image (B, N, C).
        img_ids: their positions (N, 3).
        txt: text embedding (B, L, D).
        timestep: 0..1 (B,).
        y: pooled text (B, P).
        guidance: of distillation (B,), for transformers that embed it.
        control: what a ControlNet adds after each double ("input") and single ("output") block.
        attn_mask: (..., L + N, L + N), True or 0 where a key is seen.
        options: `transformer_options`.
        txt_ids: positions of the text (L, 3); 0 by default.

    Returns:
        (B, N, C).
    """
    options = dict(options)
    vectors = calls.vectors(
        transformer, timestep.to(img.dtype), None if guidance is None else guidance.to(img.dtype), y
    )
    values: dict[str, Any] = {
        "img": transformer.x_embedder(img),
        "txt": transformer.context_embedder(txt),
        "img_ids": img_ids.expand(len(img), -1, -1),
        "txt_ids": (img_ids.new_zeros(txt.shape[1], img_ids.shape[-1]) if txt_ids is None else txt_ids).expand(
            len(img), -1, -1
        ),
    }
    for patch in options.get("patches", {}).get("post_input", []):
        values |= patch({**values, "transformer_options": options})
    img, txt = values["img"], values["txt"]
    options["img_slice"] = [txt.shape[1], txt.shape[1] + img.shape[1]]
    pe = transformer.pos_embed(torch.cat([values["txt_ids"][0], values["img_ids"][0]]))
    shared = {"pe": pe, "attn_mask": attn_mask, "transformer_options": options}
    run = _Run(transformer, calls, vectors, shared, control or {})
    img, txt = _double_blocks(run, img, txt)
    img = _single_blocks(run, torch.cat([txt, img], 1), txt.shape[1])
    return transformer.proj_out(transformer.norm_out(img[:, txt.shape[1] :], calls.vector(vectors, "final")))


class _Run(NamedTuple):
    """What all blocks of a run share."""

    transformer: Any
    calls: FluxCalls
    vectors: Any
    shared: Options
    control: dict[str, list[Tensor | None]]

    @property
    def options(self) -> Options:
        return self.shared["transformer_options"]

    def arguments(self, kind: str, index: int) -> Options:
        self.options["block_index"] = index
        return {**self.shared, "vec": self.calls.vector(self.vectors, kind, index)}


def _double_blocks(run: _Run, img: Tensor, txt: Tensor) -> tuple[Tensor, Tensor]:
    blocks, added = run.transformer.transformer_blocks, run.control.get("input", [])
    run.options.update(total_blocks=len(blocks), block_type="double")
    for index, block in enumerate(blocks):

        def original(args: Options, block: Any = block) -> Options:
            text, image = run.calls.double(block, args)
            return {"img": image, "txt": text}

        args = {"img": img, "txt": txt, **run.arguments("double", index)}
        out = _replaced(run.options, ("double_block", index), args, original)
        img, txt = _with_control(out["img"], added, index, 0), out["txt"]
    return img, txt


def _single_blocks(run: _Run, tokens: Tensor, text: int) -> Tensor:
    """Return tokens (B, L + N, D) of both through the single blocks."""
    blocks, added = run.transformer.single_transformer_blocks, run.control.get("output", [])
    run.options.update(total_blocks=len(blocks), block_type="single")
    for index, block in enumerate(blocks):

        def original(args: Options, block: Any = block) -> Options:
            return {"img": run.calls.single(block, args, text)}

        args = {"img": tokens, **run.arguments("single", index)}
        tokens = _replaced(run.options, ("single_block", index), args, original)["img"]
        tokens = _with_control(tokens, added, index, text)
    return tokens


def block_keywords(args: Options) -> Options:
    """Return what a block hands on to its attention."""
    return {"attention_mask": args.get("attn_mask"), "transformer_options": args.get("transformer_options")}


def _replaced(options: Options, name: tuple[str, int], args: Options, original: Any) -> Options:
    replacement = options.get("patches_replace", {}).get("dit", {}).get(name)
    return original(args) if replacement is None else replacement(args, {"original_block": original})


def _with_control(tokens: Tensor, added: list[Tensor | None], index: int, first: int) -> Tensor:
    """Return tokens with what a ControlNet adds to those that begin at `first`."""
    more = added[index] if index < len(added) else None
    if more is None:
        return tokens
    end = first + more.shape[1]
    return torch.cat([tokens[:, :first], tokens[:, first:end] + more, tokens[:, end:]], 1)
