"""A recipe drawn with the nodes that are there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ....host.errors import listed
from ..bodies.parameters import APPROXIMATED, FAMILIES, NO_EFFECT, NOT_YET
from . import control_networks, enhance, finishing, geometry, intermediate, maps, models
from .graph_layout import LaidOutGraph, Node, Output
from .model_names import family_of
from .recipe import Pairs, Recipe, ReferenceImage, named_file

FLUX_GUIDANCE = 3.5
USUAL_GUIDANCE = 7.5
SECOND_STRENGTH = 0.5
ROUNDING = 1e-9
"""Keeps a whole number of steps whole that a product of floating point numbers misses."""
# Roles of nodes that read two prompts.
PAIRS = ("positive prompts", "negative prompts")


def build(recipe: Recipe, info: Mapping[str, Mapping[str, Any]], family: str | None) -> LaidOutGraph:
    """Draw a recipe. `recipe.missing` says what had to be left out for want of a file.

    Args:
        family: of the model that was asked for; it decides where the name of the file that is used does not tell.
    """
    graph = LaidOutGraph(info)
    if recipe.maps:
        return maps.draw(graph, recipe.maps)
    model, clip, vae = models.load(graph, recipe, family)
    drawn_as = models.drawn_family(info, recipe.model, family)
    flux = drawn_as.startswith("flux")
    model, clip = _loras(graph, recipe, model, clip)
    if flux and recipe.last_layer < -1:
        why = "Flux reads T5, and of CLIP-L the pooled output alone, which has no layers to skip"
        recipe.missing["clip skip"] = (NO_EFFECT, why)
    elif recipe.last_layer < -1:
        clip = graph.add("clip skip", "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=recipe.last_layer)[0]
    vae = _vae(graph, recipe, vae)
    if recipe.token_merging and flux:
        recipe.missing["token merging"] = (NO_EFFECT, "Flux models have no tokens that could be merged so")
    elif recipe.token_merging:
        model = graph.add("token merging", "TomePatchModel", model=model, ratio=recipe.token_merging)[0]
    if recipe.tiling:
        model = graph.add("seamless model", "TesseraSeamlessModel", model=model, tiling=recipe.tiling)[0]
        vae = graph.add("seamless VAE", "TesseraSeamlessVAE", vae=vae, tiling=recipe.tiling)[0]
    if recipe.image_prompts:
        model = _image_prompts(graph, recipe, model, drawn_as)
    model, positive, negative = _prompts(graph, recipe, model, clip, drawn_as)
    positive, negative = control_networks.draw(graph, recipe, positive, negative, vae, drawn_as or family)
    latent = _latent(graph, recipe, vae, flux)
    conditions = {"model": model, "positive": positive, "negative": negative, "seed": _seed(graph, recipe)}
    refiner = _refiner(graph, recipe, drawn_as)
    if refiner:
        sampled = _refined(graph, recipe, conditions | {"latent_image": latent}, refiner)
    else:
        sampled = _sampler(graph, recipe, "sampler", conditions | {"latent_image": latent}, recipe.strength, flux)
    image = graph.add("decode", "VAEDecode", samples=sampled, vae=vae)[0]
    if recipe.intermediate:
        images = intermediate.decode(graph, graph.nodes["sampler"], vae)
        _output(graph, recipe, images, intermediate.ROLE, intermediate.PREFIX)
    if recipe.second_pass:
        larger = finishing.scaled(graph, recipe, "twice the size", image, 2.0)
        latent = graph.add("encode again", "VAEEncode", pixels=larger, vae=vae)[0]
        sampled = _sampler(graph, recipe, "second pass", conditions | {"latent_image": latent}, SECOND_STRENGTH, flux)
        image = graph.add("decode again", "VAEDecode", samples=sampled, vae=vae)[0]
    if recipe.contrast != 1.0:
        image = graph.add("contrast", "AdjustContrast", images=image, factor=recipe.contrast)[0]
    image = finishing.hide_unsafe(graph, recipe, finishing.enlarge(graph, recipe, image))
    image = finishing.cut_out(graph, recipe, image)
    _output(graph, recipe, image)
    return graph


def _output(graph: LaidOutGraph, recipe: Recipe, image: Output, role: str = "save", prefix: str = "tessera") -> None:
    if not recipe.keep:
        graph.add(role, "PreviewImage", images=image)
    elif recipe.file_format != "png" or recipe.as_text:
        kind = {"format": recipe.file_format, "base64": recipe.as_text}
        graph.add(role, "TesseraSaveImage", images=image, filename_prefix=prefix, **kind)
    else:
        graph.add(role, "SaveImage", images=image, filename_prefix=prefix)


def _loras(graph: LaidOutGraph, recipe: Recipe, model: Output, clip: Output) -> tuple[Output, Output]:
    files = models.choices(graph.info, "LoraLoader", "lora_name")
    wanted = [*recipe.loras, *([(recipe.lora_on_base, 1.0)] if recipe.lora_on_base else [])]
    if missing := [name for name, _ in wanted if not named_file(name, files)]:
        recipe.missing["lora"] = (NOT_YET, f"left out: no file {listed(missing)} in models/loras; put it there")
    found = [(file, strength) for name, strength in wanted if (file := named_file(name, files))]
    for number, (file, strength) in enumerate(found, 1):
        role = f"lora {number}" if number > 1 else "lora"
        strengths = {"strength_model": strength, "strength_clip": strength}
        node = graph.add(role, "LoraLoader", model=model, clip=clip, lora_name=file, **strengths)
        model, clip = node[0], node[1]
    return model, clip


def _vae(graph: LaidOutGraph, recipe: Recipe, vae: Output) -> Output:
    if not recipe.vae:
        return vae
    file = named_file(recipe.vae, models.choices(graph.info, "VAELoader", "vae_name"))
    if file is None:
        recipe.missing["vae"] = (NOT_YET, f'left out: no file "{recipe.vae}" in models/vae; put it there')
        return vae
    return graph.add("vae", "VAELoader", vae_name=file)[0]


def _image_prompts(graph: LaidOutGraph, recipe: Recipe, model: Output, family: str) -> Output:
    classes = ("TesseraLoadIPAdapter", "TesseraImagePrompt", "TesseraApplyImagePrompts")
    file = _adapter(graph, family)
    if file is None:
        of_family = FAMILIES.get(family, "this model")
        why = f"left out: no IP-Adapter for {of_family} in models/ipadapter, recognised by its name; put one there"
        roles = ("image prompt", "image prompt adapter", "image prompt image", "mask of image prompt")
        recipe.missing |= dict.fromkeys(roles, (NOT_YET, why))
        return model
    adapter = graph.add("image prompt adapter", classes[0], ip_adapter=file)
    previous: dict[str, Output] = {}
    for number, each in enumerate(recipe.image_prompts, 1):
        previous = {"previous": _image_prompt(graph, each, f"image prompt {number}", recipe.size, previous)[0]}
    apply = {"ip_adapter": adapter[0], "image_prompts": previous["previous"]}
    return graph.add("image prompts", classes[2], model=model, **apply)[0]


def _adapter(graph: LaidOutGraph, family: str) -> str | None:
    """Return the adapter for a model of a family: a demo model has its own, others one whose name does not belie it."""
    files = models.choices(graph.info, "TesseraLoadIPAdapter", "ip_adapter")
    demo = graph.nodes["model"].class_type == "TesseraDemoCheckpoint"
    if demo and not family.startswith("flux"):
        return files[0]
    own = {name: "flux" if "flux" in name.lower() else family_of(name) for name in files[1:]}
    wanted = "flux" if family.startswith("flux") else family
    fitting = [name for name, kind in own.items() if kind == wanted]
    unsaid = [name for name, kind in own.items() if kind is None and not demo]
    return next(iter([*fitting, *unsaid]), None)


def _image_prompt(
    graph: LaidOutGraph, prompt: ReferenceImage, role: str, size: tuple[int, int], previous: Mapping[str, Output]
) -> Node:
    image = graph.add(f"{role} image", "LoadImage", image=prompt.file)[0]
    masks = {"mask": geometry.mask(graph, f"mask of {role}", prompt.mask, size)} if prompt.mask else {}
    acts = {"scale": prompt.scale, "type": prompt.type}
    return graph.add(role, "TesseraImagePrompt", image=image, **acts, **masks, **previous)


def _prompts(
    graph: LaidOutGraph, recipe: Recipe, model: Output, clip: Output, family: str
) -> tuple[Output, Output, Output]:
    if recipe.pairs and family == "sdxl":
        return model, *_pairs(graph, recipe, recipe.pairs, clip)
    if recipe.pairs:
        why = "joined to the first prompt: only SDXL's text encoders read one each"
        recipe.missing |= dict.fromkeys([f"{role}.text_g" for role in PAIRS], (APPROXIMATED, why))
    text = enhance.written(graph, recipe, literal(recipe.prompt))
    positive = graph.add("positive", "CLIPTextEncode", text=text, clip=clip)[0]
    if not family.startswith("flux"):
        negative = graph.add("negative", "CLIPTextEncode", text=_negative(recipe), clip=clip)[0]
        return model, positive, negative
    if recipe.negative and recipe.guidance is not None and recipe.guidance < 1:
        left_out = (NO_EFFECT, "a guidance below 1 leaves the negative prompt out")
        recipe.missing |= dict.fromkeys(("negative", "flux negative"), left_out)
    elif recipe.negative and recipe.negative_strength:
        negative = graph.add("negative", "CLIPTextEncode", text=literal(recipe.negative), clip=clip)[0]
        strength = {"negative": negative, "strength": recipe.negative_strength}
        model = graph.add("flux negative", "TesseraFluxNegative", model=model, **strength)[0]
    elif recipe.negative:
        why = "left out: a Flux model takes it only with a strength, which this request does not have"
        recipe.missing["negative"] = (NOT_YET, why)
    nothing = graph.add("no negative", "ConditioningZeroOut", conditioning=positive)[0]
    guidance = FLUX_GUIDANCE if recipe.guidance is None else recipe.guidance
    return model, graph.add("guidance", "FluxGuidance", conditioning=positive, guidance=guidance)[0], nothing


def _negative(recipe: Recipe) -> str:
    """Return the negative prompt of a model with classifier-free guidance, which a guidance of 1 leaves out."""
    if recipe.guidance is None or recipe.guidance > 1 or not recipe.negative:
        return literal(recipe.negative)
    recipe.missing |= dict.fromkeys(("negative", PAIRS[1]), (NO_EFFECT, "a guidance of 1 or less leaves it out"))
    return ""


def _pairs(graph: LaidOutGraph, recipe: Recipe, pairs: Pairs, clip: Output) -> tuple[Output, Output]:
    """A prompt for each of SDXL's text encoders; as in diffusers, the image that is imagined has its own size."""
    width, height = recipe.size
    sizes = {"width": width, "height": height, "target_width": width, "target_height": height}
    positive, negative = (
        graph.add(role, "CLIPTextEncodeSDXL", clip=clip, **sizes, text_l=literal(pair[0]), text_g=literal(pair[1]))
        for role, pair in zip(PAIRS, (pairs.positive, pairs.negative), strict=True)
    )
    return positive[0], negative[0]


def _latent(graph: LaidOutGraph, recipe: Recipe, vae: Output, flux: bool) -> Output:
    width, height = recipe.size
    if recipe.init_image is None:
        count = 1 if len(recipe.seeds) > 1 else recipe.count
        kind = "EmptySD3LatentImage" if flux else "EmptyLatentImage"
        return graph.add("size", kind, width=width, height=height, batch_size=count)[0]
    latent = _first_latent(graph, recipe, vae, recipe.init_image)
    if recipe.count > 1 and len(recipe.seeds) == 1:
        latent = graph.add("count", "RepeatLatentBatch", samples=latent, amount=recipe.count)[0]
    return latent


def _first_latent(graph: LaidOutGraph, recipe: Recipe, vae: Output, file: str) -> Output:
    """The first image in the size that is asked for, with a mask of what is painted."""
    roles = ("init image", "size", "unzoom")
    if recipe.upscale:
        pixels, mask = finishing.upscaled(graph, recipe, file), None
    else:
        pixels, mask = geometry.placed(graph, roles, file, recipe.size, recipe.unzoom)
    if recipe.mask and not recipe.unzoom:
        mask = geometry.mask(graph, "mask", recipe.mask, recipe.size)
    if mask and recipe.fill_mask:
        return graph.add("encode", "VAEEncodeForInpaint", pixels=pixels, vae=vae, mask=mask)[0]
    latent = graph.add("encode", "VAEEncode", pixels=pixels, vae=vae)[0]
    return graph.add("noise mask", "SetLatentNoiseMask", samples=latent, mask=mask)[0] if mask else latent


def _sampler(
    graph: LaidOutGraph, recipe: Recipe, role: str, conditions: Mapping[str, Any], strength: float, flux: bool
) -> Output:
    if not strength:
        return conditions["latent_image"]
    guidance = USUAL_GUIDANCE if recipe.guidance is None else recipe.guidance
    # Below 1 the services do without guidance.
    shared = {**conditions, "cfg": 1.0 if flux else max(guidance, 1.0), "denoise": strength}
    karras = recipe.karras and not flux
    # The samplers run all their steps below `denoise`; the services skip those above.
    steps = max(1, math.floor(recipe.steps * strength + ROUNDING))
    if recipe.scheduler:
        how = {"scheduler": recipe.scheduler, "spacing": "karras" if karras else "auto", "steps": steps}
        how |= {"algorithm_type": recipe.algorithm} if recipe.algorithm else {}
    else:
        levels = "simple" if flux else "karras" if karras else "normal"
        how = {"steps": steps, "sampler_name": "euler", "scheduler": levels}
    if recipe.intermediate:
        return intermediate.sample(graph, role, {**shared, **how})
    kind = "TesseraSchedulerKSampler" if recipe.scheduler else "KSampler"
    return graph.add(role, kind, **shared, **how)[0]


def _refiner(graph: LaidOutGraph, recipe: Recipe, family: str) -> str | None:
    """The checkpoint that ends the image; the first with "refiner" in its name, and with latents of the same kind."""
    if recipe.refine_from is None:
        return None
    files = [
        name for name in models.choices(graph.info, "CheckpointLoaderSimple", "ckpt_name") if "refiner" in name.lower()
    ]
    fitting = [name for name in files if not family or family_of(name) in (None, family)]
    if family.startswith("flux") or (files and not fitting):
        of_family = FAMILIES.get(family, "this model")
        why = f"left out: a refiner goes on with latents of its own family, which those of {of_family} are not"
        recipe.missing |= dict.fromkeys(("refiner", "refiner sampler"), (NO_EFFECT, why))
        return None
    if not fitting:
        why = 'left out: no file with "refiner" in its name in models/checkpoints; put one there'
        recipe.missing["refiner"] = (NOT_YET, why)
        return None
    return fitting[0]


def _refined(graph: LaidOutGraph, recipe: Recipe, conditions: Mapping[str, Any], refiner: str) -> Output:
    """Two models in turn: the second goes on from the noise that the first leaves.

    KSamplerAdvanced adds no noise where it has no step to run, so a model without a share is left out.
    """
    if recipe.scheduler:
        recipe.missing["sampler.scheduler"] = (APPROXIMATED, "euler, which can hand over to the refiner")
    steps = recipe.steps
    first = round(steps * (1 - recipe.strength))
    change = max(first, round(steps * (recipe.refine_from or 0.0)))
    shared = {
        "noise_seed": conditions["seed"],
        "steps": steps,
        "cfg": max(USUAL_GUIDANCE if recipe.guidance is None else recipe.guidance, 1.0),
        "sampler_name": "euler",
        "scheduler": "karras" if recipe.karras else "normal",
    }
    begins = {"add_noise": "enable", "start_at_step": first, "end_at_step": change}
    begins |= {"return_with_leftover_noise": "enable"}
    given = {name: value for name, value in conditions.items() if name != "seed"}
    latent = conditions["latent_image"]
    if change > first:
        latent = graph.add("sampler", "KSamplerAdvanced", **given, **shared, **begins)[0]
    if change == steps:
        return latent
    loaded = graph.add("refiner", "CheckpointLoaderSimple", ckpt_name=refiner)
    # A refiner has the second of SDXL's text encoders alone.
    alone = recipe.pairs if recipe.pairs and PAIRS[0] in graph.nodes else None
    prompts = (alone.positive[1], alone.negative[1]) if alone else (recipe.prompt, recipe.negative)
    texts = dict(zip(("refiner positive", "refiner negative"), prompts, strict=True))
    read = [graph.add(role, "CLIPTextEncode", text=literal(text), clip=loaded[1])[0] for role, text in texts.items()]
    ends = {"add_noise": "disable" if change > first else "enable", "start_at_step": change, "end_at_step": steps}
    ends |= {"return_with_leftover_noise": "disable", "latent_image": latent}
    ends |= {"model": loaded[0], "positive": read[0], "negative": read[1]}
    return graph.add("refiner sampler", "KSamplerAdvanced", **shared, **ends)[0]


def _seed(graph: LaidOutGraph, recipe: Recipe) -> int | Output:
    if len(recipe.seeds) == 1:
        return recipe.seeds[0]
    return graph.add("seeds", "TesseraSeeds", seeds=", ".join(map(str, recipe.seeds)))[0]


LONE_BACKSLASH = re.compile(r"(?<!\\)((?:\\\\)*\\)(?=[{}|])")
"""An odd number of backslashes before a sign of dynamic prompts: the last one would escape that of `literal`."""


def literal(text: str) -> str:
    """Return a prompt whose braces stay: ComfyUI's interface would choose among `{a|b}` and leave `//` comments out.

    It has no way to write a backslash before a sign, so a space parts them, as it parts the signs of comments.
    """
    text = LONE_BACKSLASH.sub(r"\1 ", text)
    for sign in "{}|":
        text = text.replace(sign, "\\" + sign)
    return text.replace("//", "/ /").replace("/*", "/ *")
