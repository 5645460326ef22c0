"""OctoAI: Generate SDXL, which also served SD 1.5, SSD and SD3."""

from __future__ import annotations

import re

from ...host.errors import listed, shown
from ...host.folder_paths import get_filename_list
from ...images.service_limits import COUNTS, STEPS, octoai_sizes
from . import control_networks
from .parameters import APPROXIMATED, FAMILIES, MAPPED, NO_EFFECT, NOT_YET, OTHER_FAMILY
from .recipe import FindImage, ImagePrompt, Pairs, Recipe, named_file
from .scheduler_names import DIFFUSERS, KARRAS, OCTOAI
from .styles import OCTOAI_STYLES, WORDS, described
from .tables import Parameter, Request

# The scale of an image that no scale is given for.
TRANSFERRED = 0.9


def _side(name: str) -> Parameter:
    goes = (f"size.{name}",)
    how = "One of the documented sizes of the family. Left out: 512 for SD 1.5, 1024 for SDXL."
    return Parameter(name, "whole", MAPPED, goes, how, default=1024, family_default={"sd15": 512, "sdxl": 1024})


PARAMETERS = (
    Parameter("prompt", "text", MAPPED, ("positive.text", "positive prompts.text_l"), required=True),
    Parameter(
        "cfg_scale",
        "number",
        MAPPED,
        ("sampler.cfg", "guidance.guidance"),
        "",
        12.0,
        (0.0, 50.0),
        above=True,
    ),
    Parameter(
        "checkpoint",
        "text",
        MAPPED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "The file of that name, or the one given with --model; a demo model replaces one that is missing.",
    ),
    Parameter(
        "clip_skip",
        "whole",
        MAPPED,
        ("clip skip.stop_at_clip_layer",),
        "How many layers before the last one: 1 is the one before it. The document has no range.",
        None,
        (0, 23),
    ),
    *control_networks.OCTOAI,
    _side("height"),
    Parameter(
        "high_noise_frac",
        "number",
        MAPPED,
        ("refiner sampler.start_at_step",),
        "Acts beside use_refiner.",
        0.8,
        (0.0, 1.0),
        needs="use_refiner",
    ),
    Parameter(
        "image_encoding",
        "choice",
        MAPPED,
        ("save.format",),
        "Left out: png.",
        choices=("jpeg", "png"),
    ),
    Parameter("init_image", "text", MAPPED, ("init image.image",), "Base64, written to the input folder."),
    Parameter(
        "ip_adapter_image", "text", MAPPED, ("image prompt image.image",), "Base64, written to the input folder."
    ),
    Parameter(
        "ip_adapter_mask_image",
        "text",
        MAPPED,
        ("mask of image prompt.image",),
        "White is where the image acts. Needs ip_adapter_image.",
        needs="ip_adapter_image",
    ),
    Parameter(
        "ip_adapter_method",
        "choice",
        MAPPED,
        ("image prompt.type",),
        "Left out: full.",
        choices=("full", "style", "composition"),
        needs="ip_adapter_image",
    ),
    Parameter(
        "ip_adapter_mode",
        "choice",
        MAPPED,
        ("image prompt adapter.ip_adapter",),
        "base is the only mode, and what an adapter file does.",
        choices=("base",),
        needs="ip_adapter_image",
    ),
    Parameter(
        "ip_adapter_scale",
        "number",
        MAPPED,
        ("image prompt.scale",),
        "Above 1, 1 is used.",
        1.0,
        needs="ip_adapter_image",
    ),
    Parameter(
        "loras",
        "weights",
        MAPPED,
        ("lora.lora_name", "lora.strength_model"),
        "Each name is a file in models/loras; a weight of null is 1.",
        within=(-20.0, 20.0),
    ),
    Parameter(
        "mask_image",
        "text",
        MAPPED,
        ("mask.image",),
        "White is painted anew. Needs init_image.",
        needs="init_image",
    ),
    Parameter("negative_prompt", "text", MAPPED, ("negative.text", "negative prompts.text_l")),
    Parameter(
        "negative_prompt_2",
        "text",
        MAPPED,
        ("negative prompts.text_g", "negative.text"),
        "SDXL's second text encoder reads it. For other models it is joined to negative_prompt, which is approximated.",
    ),
    Parameter(
        "num_images",
        "whole",
        MAPPED,
        ("size.batch_size", "count.amount"),
        "The document has no range; with init_image up to 64, as RepeatLatentBatch takes no more.",
        1,
        COUNTS["OctoAI"],
    ),
    Parameter(
        "outpainting",
        "flag",
        APPROXIMATED,
        ("encode.mask",),
        "What lies under mask_image counts as nothing; the service's preprocessing is not public.",
        needs="mask_image",
    ),
    Parameter(
        "prompt_2",
        "text",
        MAPPED,
        ("positive prompts.text_g", "positive.text"),
        "SDXL's second text encoder reads it. For other models it is joined to prompt, which is approximated.",
    ),
    Parameter(
        "sampler",
        "choice",
        MAPPED,
        ("sampler.scheduler",),
        "The document lists no names; these are what public clients sent, and diffusers' own. Left out: euler.",
        choices=(*OCTOAI, *DIFFUSERS),
        is_open=True,
    ),
    Parameter(
        "seed",
        "seeds",
        MAPPED,
        ("sampler.seed", "sampler.noise_seed", "seeds.seeds"),
        "Left out: random, or the one given with --seed. A list: one image each, num_images does nothing.",
        None,
        (1, 2**32 - 1),
    ),
    Parameter(
        "steps",
        "whole",
        MAPPED,
        ("sampler.steps",),
        "",
        30,
        STEPS["OctoAI"],
    ),
    Parameter(
        "strength",
        "number",
        MAPPED,
        ("sampler.denoise",),
        "Needs init_image; 1 keeps nothing of it.",
        0.8,
        (0.0, 1.0),
        above=True,
        needs="init_image",
    ),
    Parameter(
        "style_preset",
        "choice",
        APPROXIMATED,
        ("positive.text", "positive prompts.text_l", "positive prompts.text_g"),
        "Words of our own behind the prompt; the document lists no names, these are what public clients sent.",
        choices=OCTOAI_STYLES,
        is_open=True,
    ),
    Parameter(
        "textual_inversions",
        "names",
        MAPPED,
        ("positive.text", "negative.text", "positive prompts.text_l", "positive prompts.text_g"),
        "Each trigger word in the prompts becomes embedding:NAME, a file in models/embeddings.",
    ),
    Parameter(
        "transfer_images",
        "samples",
        APPROXIMATED,
        ("image prompt image.image", "image prompt.scale"),
        "Nothing is learned: images of a trigger word in the prompt are image prompts, together as strong as one.",
    ),
    Parameter(
        "use_refiner",
        "flag",
        MAPPED,
        ("refiner.ckpt_name",),
        "The checkpoint with refiner in its name; the sampler is euler then.",
    ),
    Parameter("vae", "text", MAPPED, ("vae.vae_name",), "The file of that name in models/vae."),
    _side("width"),
)


MOST_REPEATS = 64
"""Of one first image, by ComfyUI's RepeatLatentBatch."""


def refusals(request: Request) -> list[str]:
    """What the document forbids across parameters."""
    lines = [
        f"{name}: found without {needed}; expected both, or neither"
        for name, needed in (("mask_image", "init_image"), ("ip_adapter_mask_image", "ip_adapter_image"))
        if request[name] and not request[needed]
    ]
    if request["init_image"] and request["num_images"] > MOST_REPEATS:
        lines.append(f"num_images: found {request['num_images']}; expected at most {MOST_REPEATS} with init_image")
    lines += control_networks.octoai_refusals(request)
    sizes = octoai_sizes("SD 1.5" if request.family == "sd15" else "SDXL")
    size = (request["width"], request["height"])
    if {"width", "height"} & request.given and size not in sizes:
        known = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        family = FAMILIES["sd15" if request.family == "sd15" else "sdxl"]
        lines.append(f"width, height: found {size[0]}x{size[1]}; expected one of {known} for {family}{OTHER_FAMILY}")
    return lines


def recipe(request: Request, find_image: FindImage, seed: int) -> Recipe:
    """What a request asks for; `seed` is taken where it names none."""
    seeds = [seed] if request["seed"] is None else request["seed"]
    style = WORDS[request["style_preset"]] if request["style_preset"] else ""
    made = Recipe(
        prompt=described(request["prompt"], request["prompt_2"] or "", style),
        size=(request["width"], request["height"]),
        seeds=seeds if isinstance(seeds, list) else [seeds],
        negative=described(request["negative_prompt"] or "", request["negative_prompt_2"] or ""),
        pairs=_pairs(request, style),
        model=request["checkpoint"] or "",
        count=request["num_images"],
        steps=request["steps"],
        guidance=request["cfg_scale"],
        scheduler=OCTOAI.get(request["sampler"], request["sampler"]),
        karras=request["sampler"] in KARRAS,
        loras=[(name, 1.0 if weight is None else weight) for name, weight in (request["loras"] or {}).items()],
        vae=request["vae"] or "",
        last_layer=-1 - (request["clip_skip"] or 0),
    )
    if request["use_refiner"]:
        made.refine_from = request["high_noise_frac"]
        if request["sampler"]:
            made.notes["sampler"] = (APPROXIMATED, "euler, which can hand over to the refiner")
    if request["init_image"]:
        made.init_image = find_image("init_image", request["init_image"])
        made.strength = request["strength"]
    if request["mask_image"]:
        made.mask = find_image("mask_image", request["mask_image"])
        made.fill_mask = bool(request["outpainting"])
    if request["ip_adapter_image"]:
        made.image_prompts = [_reference(request, find_image)]
        scale = made.image_prompts[0].scale
        if scale != request["ip_adapter_scale"]:
            made.notes["ip_adapter_scale"] = (APPROXIMATED, f"{scale:g} is used; image prompts take 0 to 1")
    _transfer(request, find_image, made)
    control_networks.octoai(request, find_image, made)
    _name_embeddings(request, made)
    made.file_format = request["image_encoding"] or "png"
    return made


def _pairs(request: Request, style: str) -> Pairs | None:
    """The prompts of both text encoders, where the request has a second one; one that is left out is the first."""
    if not (request["prompt_2"] or request["negative_prompt_2"]):
        return None
    prompt, negative = request["prompt"], request["negative_prompt"] or ""
    positive = described(prompt, style), described(request["prompt_2"] or prompt, style)
    return Pairs(positive, (negative, request["negative_prompt_2"] or negative))


def _reference(request: Request, find_image: FindImage) -> ImagePrompt:
    mask = request["ip_adapter_mask_image"]
    return ImagePrompt(
        find_image("ip_adapter_image", request["ip_adapter_image"]),
        min(max(request["ip_adapter_scale"], 0.0), 1.0),
        request["ip_adapter_method"] or "full",
        find_image("ip_adapter_mask_image", mask) if mask else None,
    )


def _transfer(request: Request, find_image: FindImage, made: Recipe) -> None:
    """Add the sample images of the trigger words in the prompt; all of a word are as strong as one image."""
    asked = {word: samples or [] for word, samples in (request["transfer_images"] or {}).items()}
    used = {word: samples for word, samples in asked.items() if samples and _word(word).search(made.prompt)}
    for word, samples in used.items():
        files = [find_image(f"transfer_images {shown(word)}", sample) for sample in samples]
        made.image_prompts += [ImagePrompt(file, round(TRANSFERRED / len(files), 3), "full") for file in files]
    if idle := [word for word in asked if word not in used]:
        why = f"left out: the prompt does not have {listed(idle)}, or no images are given for it"
        made.notes["transfer_images"] = (APPROXIMATED if used else NO_EFFECT, why)


def _name_embeddings(request: Request, made: Recipe) -> None:
    """Let the trigger words in the prompts name embeddings, where there are files of these names."""
    files = get_filename_list("embeddings")
    asked = {word or name: name for name, word in (request["textual_inversions"] or {}).items() if word or name}
    found = {word: file.rsplit(".", 1)[0] for word, name in asked.items() if (file := named_file(name, files))}
    before = made.prompt, made.negative
    made.prompt, made.negative = (_with_embeddings(text, found) for text in before)
    if made.pairs:
        sides = (made.pairs.positive, made.pairs.negative)
        made.pairs = Pairs(*((_with_embeddings(one, found), _with_embeddings(other, found)) for one, other in sides))
    if missing := [name for word, name in asked.items() if word not in found]:
        why = f"left out: no file {listed(missing)} in models/embeddings; put it there"
        made.notes["textual_inversions"] = (NOT_YET, why)
    elif asked and before == (made.prompt, made.negative):
        made.notes["textual_inversions"] = (NO_EFFECT, f"the prompts do not have {listed(asked)}")


def _word(word: str) -> re.Pattern[str]:
    """Finds a word where it stands alone."""
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")


def _with_embeddings(prompt: str, triggers: dict[str, str]) -> str:
    """A prompt whose trigger words name embeddings; a name must stand between spaces, commas or brackets."""
    if not triggers:
        return prompt
    words = "|".join(re.escape(word) for word in sorted(triggers, key=len, reverse=True))
    named = re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda found: f"\0embedding:{triggers[found[0]]}\0", prompt)
    return re.sub(r"\0(?=[\s,:)\]]|$)|(?<![^\s(\[])\0", "", named).replace("\0", " ")
