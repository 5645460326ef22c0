"""Image prompts in Stable Diffusion 3.5, as InstantX trained them: pixels attend to themselves and to the image.

Beside the block's own attention, which text takes part in, the pixels' queries attend to the pixels' keys and to those
of the image in one softmax, with norms of the adapter's own. What that gives is added before the projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ..patching.attention import Attention
from ..patching.joint_blocks import JointBlockPatch, joint_blocks_patched
from .joint import JointImages, attend_jointly
from .layers import Layer
from .maps import Record
from .steps import Rows, Step
from .timed import TimedGroup, TimedTokens


class ImagesInBlock(JointBlockPatch):
    """One block in one call: what its attention gives, plus the images.

    Args:
        layer: the block.
        step: the call.
        groups: the images, with their tokens at this noise level.
        attention: a host's `optimized_attention`.
        record: where to record how strongly each image acts.
    """

    def __init__(
        self,
        layer: Layer,
        step: Step,
        groups: Sequence[tuple[TimedGroup, TimedTokens]],
        attention: Attention,
        record: Record | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.step, self.groups, self.attention, self.record = layer, step, groups, attention, record

    def change(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Add the images of the step."""
        found = out.clone()
        q, k, v = (each.unflatten(-1, (self.layer.heads, -1)) for each in (q, k, v))
        for group, tokens in self.groups:
            made = group.joined(tokens, self.layer.number, q.shape[-1])
            if made is not None:
                normed = (*group.normed(q, k, self.layer.number), v)
                self._add(found, out, tuple(each.transpose(1, 2) for each in normed), *made)
        return found

    def _add(
        self, found: Tensor, out: Tensor, given: Sequence[Tensor], images: JointImages, numbers: tuple[int, ...]
    ) -> None:
        each = len(out) // self.step.conditionings
        grid = self.layer.grid(self.step.size)
        for rows in self.step.rows:
            span = slice(rows.first * each, rows.stop * each)
            q, k, v = (part[span] for part in given)
            mask = self._mask(rows, numbers)
            found[span] += attend_jointly(self.attention, q, k, v, images, mask, rows.role)
            if self.record is not None:
                for place, number in enumerate(numbers):
                    own = None if mask is None else mask[place : place + 1]
                    added = attend_jointly(self.attention, q, k, v, images.only(place), own, rows.role)
                    self.record.note(number, added, out[span], grid)

    def _mask(self, rows: Rows, numbers: tuple[int, ...]) -> Tensor | None:
        if rows.masks is None or not rows.masks.acts(numbers):
            return None
        return rows.masks.rows(self.layer.grid(self.step.size), numbers)


@contextmanager
def images_in_blocks(
    network: nn.Module,
    layers: Sequence[Layer],
    step: Step,
    groups: Sequence[TimedGroup],
    timestep: Tensor,
    attention: Attention,
    record: Record | None = None,
) -> Iterator[None]:
    """Let the blocks of Stable Diffusion 3 see the images of a call inside a `with` block.

    Args:
        network: as the host holds it.
        layers: where images act.
        step: the call.
        groups: the images.
        timestep: of the call (1,), 0..1000.
        attention: a host's `optimized_attention`.
        record: where to record how strongly each image acts.
    """
    found = [(group, tokens) for group in groups if (tokens := group.at(timestep, step.active)) is not None]
    patches = {layer.key[1]: ImagesInBlock(layer, step, found, attention, record) for layer in layers}
    with joint_blocks_patched(network, patches):
        yield
