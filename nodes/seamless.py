"""Seamless Model and Seamless VAE: generate images that repeat."""

from __future__ import annotations

from typing import Any

from ..contract import io
from ..patching.schedule import ScheduleRange
from ..patching.wrappers import install, remove
from ..tiling.axes import TILINGS
from ..tiling.methods import METHODS, check_method, choose
from ..tiling.vae import seamless_vae
from .checks import verdict
from .inputs import check_range, percent, tiling_input
from .replacements import native_tiling
from .shown import shown

KEY = "tessera_seamless"
OFF = "Off: no edges meet, not even those of an earlier Seamless Model."

TILING_TOOLTIP = (
    "Which edges meet: horizontal joins left and right, vertical top and bottom, both all four; half_drop and brick "
    "also join all four, and shift each repeat to the right, or below, by half."
)


class TesseraSeamlessModel(io.ComfyNode):
    """Make a model generate on a torus."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSeamlessModel",
            display_name="Seamless Model",
            category="Tessera/tiling",
            description="Makes a model generate textures that repeat without a seam; decode them with Seamless VAE.",
            search_aliases=[
                "seamless",
                "tile",
                "tileable",
                "tiling",
                "texture",
                "pattern",
                "circular padding",
                "asymmetric tiling",
            ],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip="Stable Diffusion, SDXL, Flux or another model; it is not changed."),
                tiling_input(TILING_TOOLTIP),
                percent("start_percent", 0.0, "Fraction of the schedule at which the edges start to meet."),
                percent("end_percent", 1.0, "Fraction of the schedule after which the edges no longer meet."),
                io.Combo.Input(
                    "method",
                    options=["auto", *METHODS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="How the edges are joined: auto chooses by model, circular wraps convolutions (UNets), "
                    "torus_rope makes positions periodic (Flux and other transformers), rolling moves the latents "
                    "at each step (any model, approximate).",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, generating on a torus."),
                io.String.Output(display_name="report", tooltip="Summary and warnings."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        tiling: str,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        method: str = "auto",
    ) -> io.NodeOutput:
        """Patch a clone of the model."""
        tiling = native_tiling(tiling)
        check_seamless(tiling, start_percent, end_percent, method)
        axes = TILINGS[tiling]
        if not any(axes):
            return io.NodeOutput(remove(model, KEY), OFF, ui=shown(OFF))
        hooks, report = choose(model, method, axes, ScheduleRange(start_percent, end_percent))
        return io.NodeOutput(install(model, KEY, hooks, hooks.hooks), report, ui=shown(report))

    @classmethod
    def validate_inputs(
        cls,
        tiling: str | None = "both",
        start_percent: float | None = 0.0,
        end_percent: float | None = 1.0,
        method: str | None = "auto",
    ) -> bool | str:
        """Check the range, and that the method can suit a model."""
        given = {
            "tiling": native_tiling(tiling),
            "start_percent": start_percent,
            "end_percent": end_percent,
            "method": method,
        }
        return verdict(cls, given, (check_seamless, list(given)))


def check_seamless(tiling: str, start: float, end: float, method: str) -> None:
    """Raise ValueError when settings suit no model; none can be wrong where the tiling is off."""
    axes = TILINGS[tiling]
    if any(axes):
        check_range(start, end)
        check_method(method, axes)


class TesseraSeamlessVAE(io.ComfyNode):
    """Make a VAE encode and decode on a torus."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSeamlessVAE",
            display_name="Seamless VAE",
            category="Tessera/tiling",
            description="Makes a VAE decode and encode textures that repeat without a seam, tiled decoding included.",
            search_aliases=["seamless", "tile", "tileable", "texture", "circular vae", "tiling vae"],
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE of the model; it is not changed, and its weights are shared."),
                tiling_input(TILING_TOOLTIP),
            ],
            outputs=[io.Vae.Output(display_name="vae", tooltip="The VAE, decoding and encoding on a torus.")],
        )

    @classmethod
    def execute(cls, vae: Any, tiling: str) -> io.NodeOutput:
        """Wrap the VAE."""
        return io.NodeOutput(seamless_vae(vae, TILINGS[native_tiling(tiling)]))

    @classmethod
    def validate_inputs(cls, tiling: str | None = "both") -> bool | str:
        """Check the tiling."""
        return verdict(cls, {"tiling": native_tiling(tiling)})
