"""ComfyUI's core nodes that put hooks into a model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..models.token_merging import Merge, token_merging
from ..runtime.patcher import ModelPatcher
from ..schema import io


class TomePatchModel(io.ComfyNode):
    """ComfyUI's TomePatchModel. ComfyUI draws the tokens that stay at random; here the same ones stay in every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TomePatchModel",
            display_name="TomePatchModel",
            category="model/patch/unet",
            description="Merges tokens that are alike in the largest self-attentions, to save time.",
            inputs=[
                io.Model.Input("model", tooltip="A UNet model; it stays as it is."),
                io.Float.Input(
                    "ratio",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The part of the tokens that is merged; more is faster and coarser.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The faster model.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, ratio: float) -> io.NodeOutput:
        """Hook a clone."""
        patched, pending = model.clone(), list[Merge]()

        def merge(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            height, width = extra["original_shape"][-2:]
            pending.clear()
            if q.shape[1] < height * width or min(height, width) < 2:
                return q, k, v
            fold, unfold = token_merging(q, height, width, ratio)
            pending.append(unfold)
            return fold(q), k, v

        def unmerge(out: Tensor, extra: dict[str, Any]) -> Tensor:
            return pending.pop()(out) if pending else out

        patched.set_model_attn1_patch(merge)
        patched.set_model_attn1_output_patch(unmerge)
        return io.NodeOutput(patched)


NODES: list[type[io.ComfyNode]] = [TomePatchModel]
