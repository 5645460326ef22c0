"""Names of weights in original transformers of Stable Diffusion 3, and in those of diffusers."""

from __future__ import annotations

from .ldm_layout import Source
from .state_dicts import StateDict, count_blocks

_QKV = (1, 1, 1)
_TOP = {
    "pos_embed.proj": Source("x_embedder.proj"),
    "time_text_embed.timestep_embedder.linear_1": Source("t_embedder.mlp.0"),
    "time_text_embed.timestep_embedder.linear_2": Source("t_embedder.mlp.2"),
    "time_text_embed.text_embedder.linear_1": Source("y_embedder.mlp.0"),
    "time_text_embed.text_embedder.linear_2": Source("y_embedder.mlp.2"),
    "context_embedder": Source("context_embedder"),
    "proj_out": Source("final_layer.linear"),
    "norm_out.linear": Source("final_layer.adaLN_modulation.1", swap=True),
}
_IMAGE = {
    "norm1.linear": Source("x_block.adaLN_modulation.1"),
    "attn.to_q": Source("x_block.attn.qkv", 0, _QKV),
    "attn.to_k": Source("x_block.attn.qkv", 1, _QKV),
    "attn.to_v": Source("x_block.attn.qkv", 2, _QKV),
    "attn.to_out.0": Source("x_block.attn.proj"),
    "attn.add_q_proj": Source("context_block.attn.qkv", 0, _QKV),
    "attn.add_k_proj": Source("context_block.attn.qkv", 1, _QKV),
    "attn.add_v_proj": Source("context_block.attn.qkv", 2, _QKV),
    "ff.net.0.proj": Source("x_block.mlp.fc1"),
    "ff.net.2": Source("x_block.mlp.fc2"),
}
_CONTEXT = {
    "norm1_context.linear": Source("context_block.adaLN_modulation.1"),
    "attn.to_add_out": Source("context_block.attn.proj"),
    "ff_context.net.0.proj": Source("context_block.mlp.fc1"),
    "ff_context.net.2": Source("context_block.mlp.fc2"),
}
_LAST = {"norm1_context.linear": Source("context_block.adaLN_modulation.1", swap=True)}
"""The last block has no use for text behind it."""

_DUAL = {
    "attn2.to_q": Source("x_block.attn2.qkv", 0, _QKV),
    "attn2.to_k": Source("x_block.attn2.qkv", 1, _QKV),
    "attn2.to_v": Source("x_block.attn2.qkv", 2, _QKV),
    "attn2.to_out.0": Source("x_block.attn2.proj"),
}
_NORMS = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
}
_DUAL_NORMS = {"attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k"}


def sd3_sources(blocks: int, dual: set[int], normed: bool) -> dict[str, Source]:
    """Return original keys by diffusers' keys.

    Args:
        blocks: how many there are.
        dual: those with a second attention, of the image alone.
        normed: whether queries and keys are normed.
    """
    sources = {"pos_embed.pos_embed": Source("pos_embed")}
    tables = [("", "", _TOP, {})]
    for i in range(blocks):
        linears = _IMAGE | (_CONTEXT if i < blocks - 1 else _LAST) | (_DUAL if i in dual else {})
        norms = _NORMS | (_DUAL_NORMS if i in dual else {}) if normed else {}
        tables.append((f"transformer_blocks.{i}.", f"joint_blocks.{i}.", linears, norms))
    for to, prefix, linears, norms in tables:
        for name, source in linears.items():
            for kind in ("weight", "bias"):
                sources[f"{to}{name}.{kind}"] = source._replace(key=f"{prefix}{source.key}.{kind}")
        sources |= {f"{to}{name}.weight": Source(f"{prefix}{key}.weight") for name, key in norms.items()}
    return sources


def convert_sd3(state_dict: StateDict) -> StateDict:
    """Return an original transformer (keys without prefix) in diffusers' layout, of any size.

    Raises:
        ValueError: a tensor is missing.
    """
    dual = {int(key.split(".")[1]) for key in state_dict if ".x_block.attn2." in key}
    normed = "joint_blocks.0.x_block.attn.ln_q.weight" in state_dict
    sources = sd3_sources(count_blocks(state_dict, "joint_blocks."), dual, normed)
    missing = [source.key for source in sources.values() if source.key not in state_dict]
    if missing:
        raise ValueError(f"the transformer has no {missing[0]}; it is of another layout or incomplete")
    whole = {"pos_embed.pos_embed"}
    return {
        key: state_dict[source.key] if key in whole else source.take(state_dict[source.key])
        for key, source in sources.items()
    }
