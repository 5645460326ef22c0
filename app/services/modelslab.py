"""ModelsLab: text to image with a choice of 18 diffusers schedulers."""

from __future__ import annotations

from . import enhance, finishing
from .parameters import APPROXIMATED, MAPPED, MEANINGLESS
from .recipe import FindImage, Recipe
from .scheduler_names import DIFFUSERS
from .tables import Parameter, Request


def _side(name: str) -> Parameter:
    goes = (f"size.{name}",)
    how = "The document has no default; 512 is taken. The nearest lower multiple of 8."
    return Parameter(name, "whole", MAPPED, goes, how, None, (16, 1024))


def _switch(name: str, outcome: str, how: str, goes: tuple[str, ...] = (), default: str = "yes") -> Parameter:
    return Parameter(name, "yes/no", outcome, goes, how, default)


# The part of the tokens that the library tomesd merges in its examples.
MERGED = 0.5

WEBHOOK = "Belongs to the run: tessera run --webhook URL --track-id ID."

PARAMETERS = (
    Parameter("key", "text", MEANINGLESS, how="Nothing is asked of the service."),
    Parameter(
        "model_id",
        "text",
        MAPPED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "The file of that name, or the one given with --model; a demo model replaces one that is missing.",
    ),
    Parameter("prompt", "text", MAPPED, enhance.PROMPT, required=True),
    Parameter("negative_prompt", "text", MAPPED, ("negative.text",)),
    Parameter(
        "init_image",
        "text",
        MAPPED,
        ("init image.image",),
        "Base64 is written to the input folder; a link is never followed: say which file it is with --image.",
    ),
    Parameter(
        "mask_image",
        "text",
        MAPPED,
        ("mask.image",),
        "As init_image, which it needs; white is painted anew.",
        needs="init_image",
    ),
    _side("width"),
    _side("height"),
    Parameter(
        "samples",
        "whole",
        MAPPED,
        ("size.batch_size", "count.amount"),
        "The document has no default; 1 is taken.",
        None,
        (1, 4),
    ),
    Parameter(
        "num_inference_steps",
        "whole",
        MAPPED,
        ("sampler.steps",),
        "The document has no default; 31 is taken.",
        choices=(21, 31, 41),
    ),
    *finishing.SAFETY,
    _switch("enhance_prompt", MAPPED, enhance.HOW, enhance.SWITCH),
    Parameter(
        "guidance_scale",
        "number",
        MAPPED,
        ("sampler.cfg", "guidance.guidance"),
        "The document has no default; 7.5 is taken, for Flux 3.5.",
        None,
        (1.0, 20.0),
    ),
    Parameter(
        "strength",
        "number",
        MAPPED,
        ("sampler.denoise",),
        "Needs init_image; 1 keeps nothing of it. The document has no default; 0.7 is taken.",
        None,
        (0.0, 1.0),
        needs="init_image",
    ),
    _switch("tomesd", MAPPED, "Merges half of the tokens. Stable Diffusion only.", ("token merging.ratio",)),
    _switch(
        "use_karras_sigmas",
        MAPPED,
        "The noise levels of Karras et al.",
        ("sampler.spacing", "sampler.scheduler"),
    ),
    Parameter(
        "algorithm_type",
        "choice",
        MAPPED,
        ("sampler.algorithm_type",),
        "dpmsolver+++ is DPM++ 2M SDE, the others are DPM++ 2M.",
        "none",
        choices=("none", "dpmsolver++", "dpmsolver+++"),
        needs="DPMSolverMultistepScheduler as scheduler",
    ),
    Parameter("vae", "text", MAPPED, ("vae.vae_name",), "The file of that name in models/vae."),
    Parameter(
        "lora_strength",
        "strengths",
        MAPPED,
        ("lora.strength_model",),
        "One for each LoRA, or one for all; 1 where it is left out.",
        None,
        (0.1, 1.0),
        needs="lora_model",
    ),
    Parameter(
        "lora_model",
        "text",
        MAPPED,
        ("lora.lora_name",),
        "Names with commas between them, each a file in models/loras.",
    ),
    Parameter(
        "scheduler",
        "choice",
        MAPPED,
        ("sampler.scheduler",),
        "Left out: euler, on karras noise levels unless use_karras_sigmas is no.",
        choices=DIFFUSERS,
    ),
    Parameter(
        "seed",
        "seed",
        MAPPED,
        ("sampler.seed",),
        "Left out: random, or the one given with --seed.",
        None,
        (0, 2**64 - 1),
    ),
    Parameter("webhook", "text", MEANINGLESS, how=WEBHOOK),
    Parameter("track_id", "text", MEANINGLESS, how=WEBHOOK),
    Parameter(
        "clip_skip",
        "whole",
        MAPPED,
        ("clip skip.stop_at_clip_layer",),
        "1 is the last layer.",
        None,
        (1, 8),
    ),
    _switch(
        "base64",
        MAPPED,
        "yes: the images come as text, too. Those in the request may be base64 in any case.",
        ("save.base64",),
        "no",
    ),
    _switch("temp", MAPPED, "yes: the images are previews that are not kept.", ("save.images",), "no"),
)


def refusals(request: Request) -> list[str]:
    """What the document forbids across parameters."""
    lines = []
    if request["mask_image"] and not request["init_image"]:
        lines.append("mask_image: found without init_image; expected both, or neither")
    names, strengths = lora_names(request), request["lora_strength"] or [1.0]
    if len(strengths) not in (1, len(names)):
        lines.append(f"lora_strength: found {len(strengths)} numbers for {len(names)} LoRAs; expected one each, or one")
    return lines


def lora_names(request: Request) -> list[str]:
    """The names in lora_model."""
    return [name.strip() for name in (request["lora_model"] or "").split(",") if name.strip()]


def recipe(request: Request, find_image: FindImage, seed: int) -> Recipe:
    """What a request asks for; `seed` is taken where it names none."""
    names, strengths = lora_names(request), request["lora_strength"] or [1.0]
    made = Recipe(
        prompt=request["prompt"],
        size=((request["width"] or 512) // 8 * 8, (request["height"] or 512) // 8 * 8),
        seeds=[seed if request["seed"] is None else request["seed"]],
        negative=request["negative_prompt"] or "",
        model=request["model_id"] or "",
        count=request["samples"] or 1,
        steps=request["num_inference_steps"] or 31,
        guidance=request["guidance_scale"],
        scheduler=request["scheduler"],
        karras=request["use_karras_sigmas"],
        loras=list(zip(names, strengths if len(strengths) > 1 else strengths * len(names), strict=False)),
        vae=request["vae"] or "",
        last_layer=-(request["clip_skip"] or 1),
        token_merging=MERGED if request["tomesd"] else 0.0,
        keep=not request["temp"],
        as_text=request["base64"],
        enhance=request["enhance_prompt"],
    )
    if request["algorithm_type"] == "dpmsolver+++" and request["scheduler"] == "DPMSolverMultistepScheduler":
        made.algorithm = "sde-dpmsolver++"
    for name, side in zip(("width", "height"), made.size, strict=True):
        if request[name] and request[name] != side:
            made.notes[name] = (APPROXIMATED, f"{side} is used, the nearest lower multiple of 8")
    if request["safety_checker"]:
        made.safety = finishing.METHODS[request["safety_checker_type"]]
    if request["init_image"]:
        made.init_image = find_image("init_image", request["init_image"])
        made.strength = 0.7 if request["strength"] is None else request["strength"]
    if request["mask_image"]:
        made.mask = find_image("mask_image", request["mask_image"])
    return made
