"""The joint attention of Stable Diffusion 3: what its blocks project pixels to, and what attention gives for them.

A host replaces whole blocks there, and overrides attention, but both see queries and keys after their norms. Hooks on
the projections take them before; they last as long as a `with` block, and any override of attention goes on working.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

JOINT = "joint_block"
"""Our name of the blocks of Stable Diffusion 3, as ComfyUI lists them in `joint_blocks`."""


class JointBlockPatch:
    """A change of what the attention of one block gives for pixels.

    Attributes:
        parts: how many projections give queries, keys and values: one, or one each.
    """

    def __init__(self) -> None:
        self.parts = 3
        self._seen: list[Tensor] = []

    def see(self, _: nn.Module, __: Any, projected: Tensor) -> None:
        """Take queries, keys and values, side by side or one after the other."""
        self._seen.append(projected)

    def before(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Change what attention gives, in front of its projection."""
        # A call that failed has left what it saw.
        seen, self._seen = self._seen[-self.parts :], []
        q, k, v = seen if self.parts == 3 else seen[0].chunk(3, -1)
        return self.change(args[0], q, k, v), *args[1:]

    def change(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what attention gives for pixels. All are (B, L, C); q and k are not normed."""
        raise NotImplementedError


@contextmanager
def joint_blocks_patched(network: nn.Module, patches: Mapping[int, JointBlockPatch]) -> Iterator[None]:
    """Patch blocks inside a `with` block.

    Args:
        network: ComfyUI's `MMDiT` or diffusers' `SD3Transformer2DModel`, or what holds it.
        patches: by number of the block.
    """
    with ExitStack() as stack:
        for number, patch in patches.items():
            for handle in hook_block(network, number, patch):
                stack.callback(handle.remove)
        yield


def hook_block(network: nn.Module, number: int, patch: JointBlockPatch) -> Iterator[RemovableHandle]:
    """Patch a block, until the handles are removed; arguments as in `joint_blocks_patched`."""
    blocks = joint_blocks(network)
    assert blocks is not None
    projections, out = _projections(blocks[number])
    patch.parts = len(projections)
    for each in projections:
        yield each.register_forward_hook(patch.see)
    yield out.register_forward_pre_hook(patch.before)


def joint_blocks(network: nn.Module) -> Any:
    """Return the blocks of a Stable Diffusion 3, wherever it is in a module; None where there is none."""
    for module in network.modules():
        if hasattr(module, "joint_blocks") and hasattr(module, "x_embedder"):
            return module.joint_blocks
        if type(module).__name__ == "SD3Transformer2DModel":
            return module.transformer_blocks
    return None


def attention_of(block: Any) -> tuple[int, int]:
    """Return the channels and heads of a block's attention."""
    if hasattr(block, "x_block"):
        return block.x_block.attn.proj.weight.shape[0], block.x_block.attn.num_heads
    return block.attn.to_out[0].weight.shape[0], block.attn.heads


def _projections(block: Any) -> tuple[list[nn.Module], nn.Module]:
    """Return what gives queries, keys and values of pixels, and what projects the output of attention for them."""
    if hasattr(block, "x_block"):
        return [block.x_block.attn.qkv], block.x_block.attn.proj
    attention = block.attn
    fused = getattr(attention, "fused_projections", False)
    return [attention.to_qkv] if fused else [attention.to_q, attention.to_k, attention.to_v], attention.to_out[0]
