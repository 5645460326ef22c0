"""ModelsLab: text to image with a choice of 18 diffusers schedulers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..bodies.parameters import APPROXIMATED, MODEL, MODEL_FILE, Meaningless, Nearest, To, Words, split, within
from ..bodies.request import MOST, Request
from ..drawing import enhance, finishing
from ..drawing.recipe import FindImage, Recipe
from .scheduler_names import DiffusersName

MERGED = 0.5
"""Part of the tokens that the library tomesd merges in its examples."""
DEFAULT_SIDE, DEFAULT_STEPS, DEFAULT_STRENGTH = 512, 31, 0.7
"""Taken where a request leaves them out; the document has no defaults."""

ANSWER = {
    "W": "width",
    "H": "height",
    "steps": "num_inference_steps",
    "n_samples": "samples",
    "model": "model_id",
    "lora": "lora_model",
    "safetychecker": "safety_checker",
}

_WEBHOOK = Meaningless("Belongs to the run: tessera run --webhook URL --track-id ID.")
_SIDE = within((16, 1024), description="The document has no default; 512 is taken. The nearest lower multiple of 8.")

YesNo = Annotated[bool, Words('"yes" or "no"')]


class ModelsLabRequest(Request):
    """ModelsLab: the parameters in the order of its table."""

    service = "modelslab"
    title = "ModelsLab"
    answer = ANSWER

    key: Annotated[str | None, Meaningless("Nothing is asked of the service.")] = None
    model_id: Annotated[str | None, MODEL_FILE, MODEL] = None
    prompt: Annotated[str, enhance.PROMPT]
    negative_prompt: Annotated[str | None, To("negative.text")] = None
    init_image: Annotated[
        str | None,
        Field(
            description="Base64 is written to the input folder; a link is never followed: "
            "say which file it is with --image."
        ),
        To("init image.image"),
    ] = None
    mask_image: Annotated[
        str | None,
        Field(description="As init_image, which it needs; white is painted anew."),
        To("mask.image", needs="init_image"),
    ] = None
    width: Annotated[int | None, _SIDE, To("size.width")] = None
    height: Annotated[int | None, _SIDE, To("size.height")] = None
    samples: Annotated[
        int | None,
        within((1, 4), description="The document has no default; 1 is taken."),
        To("size.batch_size", "count.amount"),
    ] = None
    num_inference_steps: Annotated[
        int | None,
        Field(description="The document has no default; 31 is taken."),
        Nearest((21, 31, 41)),
        To("sampler.steps"),
    ] = None
    safety_checker: Annotated[
        YesNo, Field(description="With the first checker in models/safety_checker."), To("safety.checker")
    ] = True
    safety_checker_type: Annotated[
        Literal["blur", "sensitive_content_text", "pixelate", "black"],
        Field(description="sensitive_content_text: words on black."),
        To("safety.method", needs="safety_checker and a checker"),
    ] = "sensitive_content_text"
    enhance_prompt: Annotated[YesNo, enhance.HOW, enhance.SWITCH] = True
    guidance_scale: Annotated[
        float | None,
        within((1.0, 20.0), description="The document has no default; 7.5 is taken, for Flux 3.5."),
        To("sampler.cfg", "guidance.guidance"),
    ] = None
    strength: Annotated[
        float | None,
        within(
            (0.0, 1.0),
            description="Needs init_image; 1 keeps nothing of it. The document has no default; 0.7 is taken.",
        ),
        To("sampler.denoise", needs="init_image"),
    ] = None
    tomesd: Annotated[
        YesNo, Field(description="Merges half of the tokens. Stable Diffusion only."), To("token merging.ratio")
    ] = True
    use_karras_sigmas: Annotated[
        YesNo, Field(description="The noise levels of Karras et al."), To("sampler.spacing", "sampler.scheduler")
    ] = True
    algorithm_type: Annotated[
        Literal["none", "dpmsolver++", "dpmsolver+++"],
        Field(description="dpmsolver+++ is DPM++ 2M SDE, the others are DPM++ 2M."),
        To("sampler.algorithm_type", needs="DPMSolverMultistepScheduler as scheduler"),
    ] = "none"
    vae: Annotated[str | None, Field(description="The file of that name in models/vae."), To("vae.vae_name")] = None
    lora_strength: Annotated[
        Annotated[list[Annotated[float, within((0.1, 1.0))]], MOST] | None,
        Field(description="One for each LoRA, or one for all; 1 where it is left out."),
        BeforeValidator(split),
        Words("numbers with commas between them"),
        To("lora.strength_model", needs="lora_model"),
    ] = None
    lora_model: Annotated[
        str | None,
        Field(description="Names with commas between them, each a file in models/loras."),
        To("lora.lora_name"),
    ] = None
    scheduler: Annotated[
        DiffusersName | None,
        Field(description="Left out: euler, on karras noise levels unless use_karras_sigmas is no."),
        To("sampler.scheduler"),
    ] = None
    seed: Annotated[
        int | None,
        within((0, 2**64 - 1), description="Left out: random, or the one given with --seed."),
        To("sampler.seed"),
    ] = None
    webhook: Annotated[str | None, _WEBHOOK] = None
    track_id: Annotated[str | None, _WEBHOOK] = None
    clip_skip: Annotated[
        int | None, within((1, 8), description="1 is the last layer."), To("clip skip.stop_at_clip_layer")
    ] = None
    base64: Annotated[
        YesNo,
        Field(description="yes: the images come as text, too. Those in the request may be base64 in any case."),
        To("save.base64"),
    ] = False
    temp: Annotated[YesNo, Field(description="yes: the images are previews that are not kept."), To("save.images")] = (
        False
    )

    @classmethod
    def flat(cls, document: Any) -> Any:
        """Return a body without the empty texts that clients send for numbers and choices that are left out."""
        if not isinstance(document, dict):
            return document
        others = {name for name, parameter in cls.table().items() if parameter.type is not str}
        return {name: value for name, value in document.items() if value != "" or name not in others}

    @property
    def loras(self) -> list[str]:
        """The names in lora_model."""
        return [name.strip() for name in (self.lora_model or "").split(",") if name.strip()]

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        lines = []
        if self.mask_image and not self.init_image:
            lines.append("mask_image: found without init_image; expected both, or neither")
        found, names = len(self.lora_strength or [1.0]), len(self.loras)
        if found not in (1, names):
            lines.append(f"lora_strength: found {found} numbers for {names} LoRAs; expected one each, or one")
        return lines

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        strengths = self.lora_strength or [1.0]
        made = Recipe(
            prompt=self.prompt,
            size=((self.width or DEFAULT_SIDE) // 8 * 8, (self.height or DEFAULT_SIDE) // 8 * 8),
            seeds=[seed if self.seed is None else self.seed],
            negative=self.negative_prompt or "",
            model=self.model_id or "",
            count=self.samples or 1,
            steps=self.num_inference_steps or DEFAULT_STEPS,
            guidance=self.guidance_scale,
            scheduler=self.scheduler,
            karras=self.use_karras_sigmas,
            loras=list(zip(self.loras, strengths if len(strengths) > 1 else strengths * len(self.loras), strict=False)),
            vae=self.vae or "",
            last_layer=-(self.clip_skip or 1),
            token_merging=MERGED if self.tomesd else 0.0,
            keep=not self.temp,
            as_text=self.base64,
            enhance=self.enhance_prompt,
            safety=finishing.METHODS[self.safety_checker_type] if self.safety_checker else "",
        )
        if self.algorithm_type == "dpmsolver+++" and self.scheduler == "DPMSolverMultistepScheduler":
            made.algorithm = "sde-dpmsolver++"
        for name, side in zip(("width", "height"), made.size, strict=True):
            if self[name] and self[name] != side:
                made.notes[name] = (APPROXIMATED, f"{side} is used, the nearest lower multiple of 8")
        if self.init_image:
            made.init_image = find_image("init_image", self.init_image)
            made.strength = DEFAULT_STRENGTH if self.strength is None else self.strength
        if self.mask_image:
            made.mask = find_image("mask_image", self.mask_image)
        return made
