"""Make the images of the help pages and of the README's first screen with the demo models.

`python -m tessera.tools.page_images` runs one graph with `tessera run` and writes JPEG files of at most 640 px to
`web/images`. The other images there are older results of the example workflows, and `graph.jpg` is a screenshot.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..app.cli.main import main
from ..images.safety import COVERS
from .sheets import (
    FOLDER,
    Images,
    centred,
    compressed,
    grid,
    hidden,
    middle,
    repeated,
    row,
    scaled,
    text_card,
    write,
)

DOOR = (400, 264)
Link = list[Any]


class Graph:
    """An API-format graph in the making, and what its run saved and showed."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.images: dict[str, Images] = {}
        self.texts: dict[str, str] = {}
        self.loaded: dict[str, str] = {}

    def add(self, kind: str, output: int = 0, **inputs: Any) -> Link:
        """Add a node, and return the link to one of its outputs."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return [number, output]

    def demo(self, name: str) -> list[Link]:
        """Return model, clip and vae of a demo model, which is loaded once."""
        if name not in self.loaded:
            self.loaded[name] = self.add("TesseraDemoCheckpoint", name=name)[0]
        return [[self.loaded[name], output] for output in range(3)]

    def save(self, link: Link) -> Callable[[], Images]:
        """Save the images of an output; call the result after `run` to have them."""
        node = self.add("TesseraSaveImage", images=link)[0]
        return lambda: self.images[node]

    def run(self) -> None:
        """Run the graph, and read the files that it saved."""
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as printed:
            path = Path(folder) / "graph.json"
            path.write_text(json.dumps(self.nodes), encoding="utf-8")
            if main(["run", str(path), "--output-dir", folder, "--json"]):
                raise RuntimeError("the graph of the page images failed; its error is printed above")
            for node, shown in json.loads(printed.getvalue())["outputs"].items():
                self.texts[node] = "".join(shown.get("text", ()))
                if self.nodes[node]["class_type"] == "TesseraSaveImage":
                    self.images[node] = [Image.open(each["path"]).convert("RGB") for each in shown["images"]]


class Texture:
    """A texture of a demo model: its nodes, with the links that the pages go on from."""

    def __init__(
        self,
        graph: Graph,
        prompt: Any,
        seed: Any = 27,
        model: str = "texture-sd",
        seamless: bool = True,
        seamless_vae: bool = True,
        size: tuple[int, int] = (128, 128),
    ) -> None:
        self.model, clip, self.vae = graph.demo(model)
        if seamless:
            self.model = graph.add("TesseraSeamlessModel", model=self.model, tiling="both")
        if seamless_vae:
            self.vae = graph.add("TesseraSeamlessVAE", vae=self.vae, tiling="both")
        self.positive = graph.add("CLIPTextEncode", text=prompt, clip=clip)
        self.negative = graph.add("CLIPTextEncode", text="", clip=clip)
        self.empty = graph.add("EmptyLatentImage", width=size[0], height=size[1], batch_size=1)
        if model == "texture-flux":
            self.positive = graph.add("FluxGuidance", conditioning=self.positive, guidance=3.5)
        self.cfg = 1.0 if model == "texture-flux" else 4.0
        self.latent = self.sample(graph, self.model, seed)
        self.image = graph.add("VAEDecode", samples=self.latent, vae=self.vae)

    def sample(self, graph: Graph, model: Link, seed: Any, positive: Link | None = None) -> Link:
        """Sample with another model, seed or prompt."""
        return graph.add(
            "KSampler",
            model=model,
            seed=seed,
            steps=20,
            cfg=self.cfg,
            sampler_name="euler",
            scheduler="normal",
            positive=positive or self.positive,
            negative=self.negative,
            latent_image=self.empty,
            denoise=1.0,
        )


Draw = Callable[[], Image.Image]


def tiling_pages(graph: Graph) -> dict[str, Draw]:
    """Seams, and what keeps them away."""
    prompt = "teal and white scales"
    plain = Texture(graph, prompt, 11, seamless=False, seamless_vae=False)
    half = Texture(graph, prompt, 11, seamless_vae=False)
    whole = Texture(graph, prompt, 11)
    striped = [
        graph.save(Texture(graph, "red and yellow stripes", 27, seamless=on, seamless_vae=on).image)
        for on in (False, True)
    ]
    without, model_only, both = (graph.save(each.image) for each in (plain, half, whole))
    moved = graph.save(graph.add("TesseraOffsetImage", image=plain.image))
    heat = graph.save(graph.add("TesseraSeamCheck", 1, images=plain.image))
    padded = graph.save(graph.add("TesseraWrapPad", image=whole.image, padding=32))
    seamless, naive = wrapped_scaling(graph, whole.image)
    return {
        "seamless_model": lambda: row([repeated(striped[0]()[0], 2), repeated(striped[1]()[0], 2)]),
        "seamless_vae": lambda: row([repeated(middle(model_only()[0]), 2), repeated(middle(both()[0]), 2)]),
        "seam_check": lambda: row([repeated(without()[0], 3), scaled(heat()[0], 3)]),
        "offset_image": lambda: row([without()[0], moved()[0]], 2),
        "wrap_pad": lambda: row([centred(both()[0], padded()[0].size), padded()[0]], 2),
        "wrap_crop": lambda: row([naive()[0], seamless()[0]], 2),
    }


def wrapped_scaling(graph: Graph, image: Link) -> tuple[Callable[[], Images], Callable[[], Images]]:
    """Shrink and enlarge a texture between the wrap nodes and without them; return where its edges meet, enlarged."""
    middles = []
    for wrapped in (True, False):
        pad = graph.add("TesseraWrapPad", image=image, padding=32)
        source, side = (pad, 192) if wrapped else (image, 128)
        small = graph.add(
            "ImageScale", image=source, upscale_method="area", width=side // 8, height=side // 8, crop="disabled"
        )
        large = graph.add("ImageScale", image=small, upscale_method="bicubic", width=side, height=side, crop="disabled")
        if wrapped:
            large = graph.add("TesseraWrapCrop", geometry=[pad[0], 1], image=large)
        middles.append(graph.save(graph.add("TesseraOffsetImage", image=large)))
    return middles[0], middles[1]


def map_pages(graph: Graph) -> dict[str, Draw]:
    """Maps of a surface."""
    texture = Texture(graph, "a brick wall, orange bricks, grey mortar", 5)
    normal = graph.add("TesseraHeightToNormal", height=texture.image, strength=8.0)
    height = graph.add("TesseraNormalToHeight", normal=normal)
    occlusion = graph.add("TesseraAmbientOcclusion", height=texture.image, strength=16.0)
    images, normals, heights, shades = (graph.save(each) for each in (texture.image, normal, height, occlusion))
    return {
        "height_to_normal": lambda: row([images()[0], normals()[0]], 2),
        "normal_to_height": lambda: row([normals()[0], heights()[0]], 2),
        "ambient_occlusion": lambda: row([heights()[0], shades()[0]], 2),
    }


def sampling_pages(graph: Graph) -> dict[str, Draw]:
    """Prompts, seeds, sizes, steps and schedulers."""
    prompts = ("red and white zigzag", "purple and yellow grid", "green and black hexagons", "blue dots on white")
    demos = [graph.save(Texture(graph, prompt).image) for prompt in prompts]
    demos += [graph.save(Texture(graph, prompt, model="texture-flux").image) for prompt in prompts]
    short = "a stone wall with moss"
    enhanced = graph.add("TesseraEnhancePrompt", prompt=short, seed=3, max_words=30)
    shown = graph.add("PreviewAny", source=enhanced)[0]
    seeds = graph.save(Texture(graph, "black and white marble", graph.add("TesseraSeeds", seeds="1, 2, 3, 4")).image)
    shapes = ((128, 128), (160, 96), (96, 160))
    sizes = [graph.save(Texture(graph, "red and white bricks", size=size).image) for size in shapes]
    steps, compared, sampled = scheduler_images(graph)
    return {
        "demo_checkpoint": lambda: grid([each()[0] for each in demos], 4),
        "enhance_prompt": lambda: text_card(short, graph.texts[shown]),
        "seeds": lambda: row(seeds()),
        "settings": lambda: row([centred(each()[0], (160, 160)) for each in sizes]),
        "sample_steps": lambda: row(steps()[:5]),
        "scheduler_compare": lambda: compared()[0],
        "scheduler_ksampler": lambda: row([each()[0] for each in sampled]),
    }


def scheduler_images(graph: Graph) -> tuple[Callable[[], Images], Callable[[], Images], list[Callable[[], Images]]]:
    """Return the image at every fourth step, a sheet of schedulers, and one scheduler with 4, 8, 12 and 20 steps."""
    base = Texture(graph, "red and white zigzag")
    guider = graph.add("CFGGuider", model=base.model, positive=base.positive, negative=base.negative, cfg=4.0)
    sigmas = graph.add("BasicScheduler", model=base.model, scheduler="normal", steps=20, denoise=1.0)
    kept = graph.add(
        "TesseraSampleSteps",
        2,
        noise=graph.add("RandomNoise", noise_seed=27),
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler"),
        sigmas=sigmas,
        latent_image=base.empty,
        every=4,
    )
    inputs = {"positive": base.positive, "negative": base.negative, "latent_image": base.empty, "cfg": 4.0, "seed": 5}
    names = "EulerDiscrete, DDIM, DPMSolverMultistep, UniPCMultistep, HeunDiscrete, DEISMultistep, PNDM, LMSDiscrete"
    sheet = graph.add("TesseraSchedulerCompare", model=base.model, vae=base.vae, schedulers=names, steps=8, **inputs)
    sampled = [
        graph.add(
            "TesseraSchedulerKSampler", model=base.model, steps=count, scheduler="DPMSolverMultistepScheduler", **inputs
        )
        for count in (4, 8, 12, 20)
    ]
    decoded = [graph.save(graph.add("VAEDecode", samples=each, vae=base.vae)) for each in sampled]
    return graph.save(graph.add("VAEDecode", samples=kept, vae=base.vae)), graph.save(sheet), decoded


def image_prompt_pages(graph: Graph) -> dict[str, Draw]:
    """Reference images: in the whole image, in a half, as files."""
    stripes = Texture(graph, "orange and black stripes", 8, seamless=False, seamless_vae=False)
    dots = Texture(graph, "teal and white dots", 4, seamless=False, seamless_vae=False)
    target = Texture(graph, "", 2, seamless=False, seamless_vae=False, size=(256, 128))
    adapter = graph.add("TesseraLoadIPAdapter", ip_adapter="texture-sd (demo)")
    prompts = None
    for image, (left, right) in ((stripes.image, (128, 0)), (dots.image, (0, 128))):
        pad = graph.add("ImagePadForOutpaint", 1, image=image, left=left, right=right, top=0, bottom=0, feathering=0)
        given: dict[str, Any] = {"previous": prompts} if prompts else {}
        prompts = graph.add("TesseraImagePrompt", image=image, type="full", mask=pad, **given)
    model = graph.add(
        "TesseraApplyImagePrompts", model=target.model, image_prompts=prompts, ip_adapter=adapter, keep_apart=True
    )
    latent = target.sample(graph, model, 2)
    halves = graph.save(graph.add("VAEDecode", samples=latent, vae=target.vae))
    maps = graph.save(graph.add("TesseraReferenceMap", model=model, positive=target.positive, latent=latent))
    loaded = graph.add("TesseraLoadReference", reference="red zigzag (demo)", type="full")
    followed = graph.add("TesseraApplyImagePrompts", model=dots.model, image_prompts=loaded)
    drawn = [
        graph.save(graph.add("VAEDecode", samples=dots.sample(graph, followed, seed, target.positive), vae=dots.vae))
        for seed in (1, 2, 3, 4)
    ]
    references = [graph.save(each.image) for each in (stripes, dots)]
    combined = combined_images(graph, adapter, [stripes, dots])
    return {
        "combine": lambda: row([each()[0] for each in (*references, *combined)]),
        "reference_map": lambda: grid([halves()[0], *maps()[:2]], 1, 2),
        "apply_image_prompts": lambda: row([*(each()[0] for each in references), halves()[0]]),
        "load_reference": lambda: row([each()[0] for each in drawn]),
    }


def combined_images(graph: Graph, adapter: Link, references: Sequence[Texture]) -> list[Callable[[], Images]]:
    """Let both references act everywhere at scale 0.9, combined in each way."""
    target = Texture(graph, "", 2, seamless=False, seamless_vae=False)
    prompts = None
    for each in references:
        given: dict[str, Any] = {"previous": prompts} if prompts else {}
        prompts = graph.add("TesseraImagePrompt", image=each.image, type="full", **given)
    drawn = []
    for combine in ("sum", "share", "concat"):
        model = graph.add(
            "TesseraApplyImagePrompts", model=target.model, image_prompts=prompts, combine=combine, ip_adapter=adapter
        )
        latent = target.sample(graph, model, 2)
        drawn.append(graph.save(graph.add("VAEDecode", samples=latent, vae=target.vae)))
    return drawn


def file_pages(graph: Graph) -> dict[str, Draw]:
    """What becomes of finished images."""
    image = graph.save(Texture(graph, "pink and purple stripes", 3).image)
    return {
        "safety_filter": lambda: row([image()[0], *(hidden(image()[0], method) for method in COVERS)]),
        "save_image": lambda: row([scaled(compressed(image()[0], quality), 2) for quality in (100, 30, 3)]),
    }


def door_images() -> dict[str, Draw]:
    """Return the three images of the README's doors, made of those that are there."""

    def door(name: str, box: tuple[int, int, int, int]) -> Image.Image:
        return Image.open(FOLDER / name).convert("RGB").crop(box).resize(DOOR, Image.Resampling.LANCZOS)

    return {
        "door_texture": lambda: door("textures.jpg", (384, 0, 384 + 582, 384)),
        "door_steer": lambda: steered().resize(DOOR, Image.Resampling.LANCZOS),
        "door_run": terminal,
    }


def steered() -> Image.Image:
    """Show six strengths of a negative prompt in two rows."""
    strip = Image.open(FOLDER / "flux_negative.jpg").convert("RGB")
    return grid([strip.crop((128 * n, 0, 128 * n + 128, 128)) for n in range(6)], 3)


def terminal() -> Image.Image:
    """Show the README's first command with the texture that it makes."""
    page = Image.new("RGB", DOOR, "#202124")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    texture = Image.open(FOLDER / "textures.jpg").convert("RGB").crop((0, 0, 384, 180))
    page.paste(texture.resize((368, 172), Image.Resampling.LANCZOS), (16, 80))
    lines = ("$ tessera run seamless_texture.json", "seamless_texture_00001_.png", "$")
    for line, y in zip(lines, (16, 36, 56), strict=True):
        draw.text((16, y), line, fill="#e8eaed", font=font)
    return page


def write_all() -> None:
    """Make every image."""
    graph = Graph()
    groups = (tiling_pages, map_pages, sampling_pages, image_prompt_pages, file_pages)
    drawn = {name: draw for group in groups for name, draw in group(graph).items()}
    graph.run()
    for name, draw in (drawn | door_images()).items():
        write(name, draw())


if __name__ == "__main__":
    write_all()
