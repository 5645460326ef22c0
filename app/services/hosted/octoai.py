"""OctoAI: Generate SDXL, which also served SD 1.5, SSD and SD3."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from ....host.errors import listed, shown
from ....host.folder_paths import get_filename_list
from ....images.service_limits import COUNTS, STEPS, octoai_sizes
from ..bodies.parameters import (
    APPROXIMATED,
    FAMILIES,
    MODEL,
    MODEL_FILE,
    NO_EFFECT,
    NOT_YET,
    OTHER_FAMILY,
    Approximated,
    ByFamily,
    Known,
    To,
    within,
)
from ..bodies.request import MOST, Request
from ..drawing import control_networks
from ..drawing.recipe import MOST_REPEATS, FindImage, Guide, Pairs, Recipe, ReferenceImage, named_file
from .scheduler_names import DIFFUSERS, KARRAS, OCTOAI
from .styles import OCTOAI_STYLES, WORDS, described

NEEDED = {
    "mask_image": "init_image",
    "ip_adapter_mask_image": "ip_adapter_image",
    "controlnet": "controlnet_image",
}
"""Parameters that the document takes beside another alone."""
_RAW = "no node draws depth or poses; the image goes in as it is, so send one that is drawn already"
# The scale of an image that no scale is given for.
TRANSFERRED = 0.9
_BASE64 = Field(description="Base64, written to the input folder.")
_SIDE = Field(description="One of the documented sizes of the family. Left out: 512 for SD 1.5, 1024 for SDXL.")
_SIDES = ByFamily(default={"sd15": 512, "sdxl": 1024})
_Seed = Annotated[int, within((1, 2**32 - 1))]


class OctoAIRequest(Request):
    """OctoAI Generate SDXL: the parameters in the order of its page."""

    service = "octoai"
    title = "OctoAI Generate SDXL"
    usual_family = "sdxl"

    prompt: Annotated[str, To("positive.text", "positive prompts.text_l")]
    cfg_scale: Annotated[float, Field(gt=0.0, le=50.0), To("sampler.cfg", "guidance.guidance")] = 12.0
    checkpoint: Annotated[str | None, MODEL_FILE, MODEL] = None
    clip_skip: Annotated[
        int | None,
        within(
            (0, 23),
            description="How many layers before the last one: 1 is the one before it. The document has no range.",
        ),
        To("clip skip.stop_at_clip_layer"),
    ] = None
    controlnet: Annotated[
        str | None,
        Field(
            description="The file of that name in models/controlnet, or the first that has it in its name. "
            "Needs controlnet_image."
        ),
        To(control_networks.NETWORK),
    ] = None
    controlnet_conditioning_scale: Annotated[
        float,
        within(
            (0.0, control_networks.MAX_STRENGTH),
            description="The document has no range; ControlNetApplyAdvanced takes up to 10.",
        ),
        To(control_networks.STRENGTH, needs="controlnet"),
    ] = 1.0
    controlnet_early_stop: Annotated[
        float | None,
        within((0.0, 1.0), description="Left out: the ControlNet acts to the end."),
        To("control.end_percent", needs="controlnet"),
    ] = None
    controlnet_image: Annotated[str | None, _BASE64, To(control_networks.IMAGE, needs="controlnet")] = None
    controlnet_preprocess: Annotated[
        bool | None,
        Field(description="Edges for a ControlNet with canny in its name; others get the image as it is."),
        Approximated("control edges.image", needs="controlnet"),
    ] = None
    height: Annotated[int, _SIDE, _SIDES, To("size.height")] = 1024
    high_noise_frac: Annotated[
        float,
        within((0.0, 1.0), description="Acts beside use_refiner."),
        To("refiner sampler.start_at_step", needs="use_refiner"),
    ] = 0.8
    image_encoding: Annotated[Literal["jpeg", "png"] | None, Field(description="Left out: png."), To("save.format")] = (
        None
    )
    init_image: Annotated[str | None, _BASE64, To("init image.image")] = None
    ip_adapter_image: Annotated[str | None, _BASE64, To("image prompt image.image")] = None
    ip_adapter_mask_image: Annotated[
        str | None,
        Field(description="White is where the image acts. Needs ip_adapter_image."),
        To("mask of image prompt.image", needs="ip_adapter_image"),
    ] = None
    ip_adapter_method: Annotated[
        Literal["full", "style", "composition"] | None,
        Field(description="Left out: full."),
        To("image prompt.type", needs="ip_adapter_image"),
    ] = None
    ip_adapter_mode: Annotated[
        Literal["base"] | None,
        Field(description="base is the only mode, and what an adapter file does."),
        To("image prompt adapter.ip_adapter", needs="ip_adapter_image"),
    ] = None
    ip_adapter_scale: Annotated[
        float, Field(description="Above 1, 1 is used."), To("image prompt.scale", needs="ip_adapter_image")
    ] = 1.0
    loras: Annotated[
        dict[str, Annotated[float, within((-20.0, 20.0))] | None] | None,
        Field(description="Each name is a file in models/loras; a weight of null is 1."),
        To("lora.lora_name", "lora.strength_model"),
    ] = None
    mask_image: Annotated[
        str | None,
        Field(description="White is painted anew. Needs init_image."),
        To("mask.image", needs="init_image"),
    ] = None
    negative_prompt: Annotated[str | None, To("negative.text", "negative prompts.text_l")] = None
    negative_prompt_2: Annotated[
        str | None,
        Field(
            description="SDXL's second text encoder reads it. For other models it is joined to negative_prompt, "
            "which is approximated."
        ),
        To("negative prompts.text_g", "negative.text"),
    ] = None
    num_images: Annotated[
        int,
        within(
            COUNTS["OctoAI"],
            description="The document has no range; with init_image up to 64, as RepeatLatentBatch takes no more.",
        ),
        To("size.batch_size", "count.amount"),
    ] = 1
    outpainting: Annotated[
        bool | None,
        Field(description="What lies under mask_image counts as nothing; the service's preprocessing is not public."),
        Approximated("encode.mask", needs="mask_image"),
    ] = None
    prompt_2: Annotated[
        str | None,
        Field(
            description="SDXL's second text encoder reads it. For other models it is joined to prompt, "
            "which is approximated."
        ),
        To("positive prompts.text_g", "positive.text"),
    ] = None
    sampler: Annotated[
        str | None,
        Field(
            description="The document lists no names; these are what public clients sent, and diffusers' own. "
            "Left out: euler."
        ),
        Known((*OCTOAI, *DIFFUSERS)),
        To("sampler.scheduler"),
    ] = None
    seed: Annotated[
        _Seed | Annotated[list[_Seed], Field(min_length=1), MOST] | None,
        Field(
            description="Left out: random, or the one given with --seed. "
            "A list: one image each, num_images does nothing."
        ),
        To("sampler.seed", "sampler.noise_seed", "seeds.seeds"),
    ] = None
    steps: Annotated[int, within(STEPS["OctoAI"]), To("sampler.steps")] = 30
    strength: Annotated[
        float,
        Field(gt=0.0, le=1.0, description="Needs init_image; 1 keeps nothing of it."),
        To("sampler.denoise", needs="init_image"),
    ] = 0.8
    style_preset: Annotated[
        str | None,
        Field(
            description="Words of our own behind the prompt; the document lists no names, "
            "these are what public clients sent."
        ),
        Known(OCTOAI_STYLES),
        Approximated("positive.text", "positive prompts.text_l", "positive prompts.text_g"),
    ] = None
    textual_inversions: Annotated[
        dict[str, str | None] | None,
        Field(description="Each trigger word in the prompts becomes embedding:NAME, a file in models/embeddings."),
        To("positive.text", "negative.text", "positive prompts.text_l", "positive prompts.text_g"),
    ] = None
    transfer_images: Annotated[
        dict[str, list[str] | None] | None,
        Field(
            description="Nothing is learned: images of a trigger word in the prompt are image prompts, "
            "together as strong as one."
        ),
        Approximated("image prompt image.image", "image prompt.scale"),
    ] = None
    use_refiner: Annotated[
        bool | None,
        Field(description="The checkpoint with refiner in its name; the sampler is euler then."),
        To("refiner.ckpt_name"),
    ] = None
    vae: Annotated[str | None, Field(description="The file of that name in models/vae."), To("vae.vae_name")] = None
    width: Annotated[int, _SIDE, _SIDES, To("size.width")] = 1024

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        lines = [
            f"{name}: found without {needed}; expected both, or neither"
            for name, needed in NEEDED.items()
            if self[name] and not self[needed]
        ]
        if self.init_image and self.num_images > MOST_REPEATS:
            lines.append(f"num_images: found {self.num_images}; expected at most {MOST_REPEATS} with init_image")
        sizes = octoai_sizes("SD 1.5" if self.family == "sd15" else "SDXL")
        size = (self.width, self.height)
        if {"width", "height"} & self.given and size not in sizes:
            known = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            family = FAMILIES["sd15" if self.family == "sd15" else "sdxl"]
            lines.append(
                f"width, height: found {size[0]}x{size[1]}; expected one of {known} for {family}{OTHER_FAMILY}"
            )
        return lines

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        seeds = [seed] if self.seed is None else self.seed
        style = WORDS[self.style_preset] if self.style_preset else ""
        made = Recipe(
            prompt=described(self.prompt, self.prompt_2 or "", style),
            size=(self.width, self.height),
            seeds=seeds if isinstance(seeds, list) else [seeds],
            negative=described(self.negative_prompt or "", self.negative_prompt_2 or ""),
            pairs=_pairs(self, style),
            model=self.checkpoint or "",
            count=self.num_images,
            steps=self.steps,
            guidance=self.cfg_scale,
            scheduler=OCTOAI.get(self.sampler or "", self.sampler),
            karras=self.sampler in KARRAS,
            loras=[(name, 1.0 if weight is None else weight) for name, weight in (self.loras or {}).items()],
            vae=self.vae or "",
            last_layer=-1 - (self.clip_skip or 0),
        )
        if len(made.seeds) > 1:
            made.notes["num_images"] = (NO_EFFECT, "seed is a list, of which each makes one image")
        if self.use_refiner:
            made.refine_from = self.high_noise_frac
        if self.init_image:
            made.init_image = find_image("init_image", self.init_image)
            made.strength = self.strength
        if self.mask_image:
            made.mask = find_image("mask_image", self.mask_image)
            made.fill_mask = bool(self.outpainting)
        if self.ip_adapter_image:
            made.image_prompts = [_reference(self, self.ip_adapter_image, find_image)]
            scale = made.image_prompts[0].scale
            if scale != self.ip_adapter_scale:
                made.notes["ip_adapter_scale"] = (APPROXIMATED, f"{scale:g} is used; image prompts take 0 to 1")
        _transfer(self, find_image, made)
        _control(self, find_image, made)
        _name_embeddings(self, made)
        made.file_format = self.image_encoding or "png"
        return made


def _control(request: OctoAIRequest, find_image: FindImage, made: Recipe) -> None:
    name = request.controlnet
    if not name or not request.controlnet_image:
        return
    edges = bool(request.controlnet_preprocess) and "canny" in name.lower()
    if request.controlnet_preprocess and not edges:
        made.notes["controlnet_preprocess"] = (NOT_YET, _RAW)
    end = request.controlnet_early_stop
    file = find_image("controlnet_image", request.controlnet_image)
    made.guides.append(Guide(file, name, request.controlnet_conditioning_scale, 1.0 if end is None else end, edges))


def _pairs(request: OctoAIRequest, style: str) -> Pairs | None:
    """The prompts of both text encoders, where the request has a second one; one that is left out is the first."""
    if not (request.prompt_2 or request.negative_prompt_2):
        return None
    prompt, negative = request.prompt, request.negative_prompt or ""
    positive = described(prompt, style), described(request.prompt_2 or prompt, style)
    return Pairs(positive, (negative, request.negative_prompt_2 or negative))


def _reference(request: OctoAIRequest, image: str, find_image: FindImage) -> ReferenceImage:
    mask = request.ip_adapter_mask_image
    return ReferenceImage(
        find_image("ip_adapter_image", image),
        min(max(request.ip_adapter_scale, 0.0), 1.0),
        request.ip_adapter_method or "full",
        find_image("ip_adapter_mask_image", mask) if mask else None,
    )


def _transfer(request: OctoAIRequest, find_image: FindImage, made: Recipe) -> None:
    """Add the sample images of the trigger words in the prompt; all of a word are as strong as one image."""
    asked = {word: samples or [] for word, samples in (request.transfer_images or {}).items()}
    used = {word: samples for word, samples in asked.items() if samples and _word(word).search(made.prompt)}
    for word, samples in used.items():
        files = [find_image(f"transfer_images {shown(word)}", sample) for sample in samples]
        made.image_prompts += [ReferenceImage(file, round(TRANSFERRED / len(files), 3), "full") for file in files]
    if idle := [word for word in asked if word not in used]:
        why = f"left out: the prompt does not have {listed(idle)}, or no images are given for it"
        made.notes["transfer_images"] = (APPROXIMATED if used else NO_EFFECT, why)


def _name_embeddings(request: OctoAIRequest, made: Recipe) -> None:
    """Let the trigger words in the prompts name embeddings, where there are files of these names."""
    files = get_filename_list("embeddings")
    asked = {word or name: name for name, word in (request.textual_inversions or {}).items() if word or name}
    found = {word: file.rsplit(".", 1)[0] for word, name in asked.items() if (file := named_file(name, files))}
    before = made.prompt, made.negative
    made.prompt, made.negative = (_with_embeddings(text, found) for text in before)
    if made.pairs:
        sides = (made.pairs.positive, made.pairs.negative)
        made.pairs = Pairs(*((_with_embeddings(one, found), _with_embeddings(other, found)) for one, other in sides))
    idle = [word for word in found if not any(_word(word).search(text) for text in before)]
    said = f"the prompts do not have {listed(idle)}" if idle else ""
    if missing := [name for word, name in asked.items() if word not in found]:
        why = f"left out: no file {listed(missing)} in models/embeddings; put it there"
        made.notes["textual_inversions"] = (NOT_YET, f"{why}; {said}" if said else why)
    elif asked and before == (made.prompt, made.negative):
        made.notes["textual_inversions"] = (NO_EFFECT, said)
    elif said:
        made.remarks["textual_inversions"] = said


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
