"""Random input for core nodes, on which both hosts must agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from comfyui.node_fakes import FakeClip, FakeStyle, FakeVae
from torch import Tensor

Case = tuple[str, dict[str, Any]]
"""A node, and its inputs."""


def node(node_id: str, **inputs: Any) -> tuple[str, str, dict[str, Any]]:
    """An input that another node makes."""
    return "node", node_id, inputs


def cases() -> dict[str, Case]:
    """Cases by name; the same ones at every call."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def latent(batch: int = 2, height: int = 12, width: int = 16, channels: int = 4, **more: Any) -> dict[str, Any]:
        return {"samples": random(batch, channels, height, width) * 2 - 1, **more}

    def conditioning(length: int = 77, pooled: bool = True, **values: Any) -> list[list[Any]]:
        more = {"pooled_output": random(1, 16)} if pooled else {}
        return [[random(1, length, 8), {**more, **values}]]

    def image(batch: int = 2, height: int = 24, width: int = 32, channels: int = 3) -> Tensor:
        return random(batch, height, width, channels)

    found: dict[str, Case] = {}

    def add(node_id: str, **inputs: Any) -> None:
        count = sum(each[0] == node_id for each in found.values())
        found[f"{node_id}-{count}"] = (node_id, inputs)

    _conditionings(add, conditioning, random)
    _latents(add, latent, random)
    _masks(add, random)
    _images(add, image, random)
    _sizes(add, image, random)
    _values(add)
    _texts(add)
    _schedules(add)
    _shown(add, conditioning, image, random)
    _models(add)
    return found


def _conditionings(add: Any, conditioning: Any, random: Any) -> None:
    add("ConditioningCombine", conditioning_1=conditioning(), conditioning_2=conditioning())
    add("ConditioningConcat", conditioning_to=conditioning(), conditioning_from=conditioning(154))
    for first, second in ((77, 77), (77, 154), (154, 77)):
        for pooled in ((True, True), (False, True), (True, False)):
            add(
                "ConditioningAverage",
                conditioning_to=conditioning(first, pooled[0]),
                conditioning_from=conditioning(second, pooled[1]),
                conditioning_to_strength=0.3,
            )
    add("ConditioningMultiply", conditioning=conditioning(), multiplier=-1.5)
    add("ConditioningMultiply", conditioning=conditioning(pooled=False), multiplier=2.0)
    area = {"x": 40, "y": 8, "strength": 0.7}
    add("ConditioningSetArea", conditioning=conditioning(), width=72, height=64, **area)
    part = {"x": 0.25, "y": 0.5, "strength": 0.7}
    add("ConditioningSetAreaPercentage", conditioning=conditioning(), width=0.3, height=0.4, **part)
    add("ConditioningSetAreaStrength", conditioning=conditioning(), strength=3.0)
    for where in ("default", "mask bounds"):
        add("ConditioningSetMask", conditioning=conditioning(), mask=random(9, 7), set_cond_area=where, strength=0.6)
    add("ConditioningSetTimestepRange", conditioning=conditioning(), start=0.2, end=0.7)
    add("ConditioningZeroOut", conditioning=conditioning())
    add("FluxGuidance", conditioning=conditioning(), guidance=2.5)
    add("FluxDisableGuidance", conditioning=conditioning(guidance=3.0))
    add("ReferenceLatent", conditioning=conditioning())
    reference = random(1, 4, 6, 6)
    add("ReferenceLatent", conditioning=conditioning(), latent={"samples": reference})
    seen = conditioning(reference_latents=[reference])
    add("ReferenceLatent", conditioning=seen, latent={"samples": reference + 1})
    for method in ("offset", "index", "uxo/uno", "index_timestep_zero"):
        add(
            "FluxKontextMultiReferenceLatentMethod",
            conditioning=conditioning(),
            reference_latents_method=method,
        )


def _latents(add: Any, latent: Any, random: Any) -> None:
    for mask, batch_index, length in ((None, 1, 5), (random(1, 1, 8, 8), -2, 1), (random(2, 1, 8, 8), 3, 1)):
        samples = latent(3) if mask is None else latent(3, noise_mask=mask)
        add("LatentFromBatch", samples=samples, batch_index=batch_index, length=length)
    add("LatentFromBatch", samples=latent(3, batch_index=[4, 5, 6]), batch_index=1, length=2)
    for x, y, feather in ((0, 0, 0), (16, 8, 0), (24, 16, 24), (0, 24, 16), (80, 40, 32)):
        add("LatentComposite", samples_to=latent(), samples_from=latent(2, 8, 8), x=x, y=y, feather=feather)
    for x, y, resize, mask in ((0, 0, False, None), (40, 16, False, random(10, 6)), (8, 8, True, random(2, 10, 6))):
        over = latent(1, 8, 8)
        inputs: dict[str, Any] = {"destination": latent(), "source": over, "x": x, "y": y, "resize_source": resize}
        add("LatentCompositeMasked", **inputs, **({} if mask is None else {"mask": mask}))
    add("LatentBlend", samples1=latent(), samples2=latent(2, 8, 24), blend_factor=0.3)
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        add("LatentRotate", samples=latent(), rotation=turn)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        add("LatentFlip", samples=latent(), flip_method=method)
    for width, height, x, y in ((64, 72, 0, 0), (512, 512, 16, 8), (64, 64, 400, 400)):
        add("LatentCrop", samples=latent(), width=width, height=height, x=x, y=y)
    for each in ("LatentAdd", "LatentSubtract", "LatentBatch"):
        add(each, samples1=latent(), samples2=latent())
        add(each, samples1=latent(3), samples2=latent(2, 8, 8))
    add("EmptyFlux2LatentImage", width=64, height=96, batch_size=2)
    add("BatchLatentsNode", latents={"latent0": latent(), "latent1": latent(1, 8, 8)})
    add("LatentMultiply", samples=latent(), multiplier=-2.5)
    add("LatentInterpolate", samples1=latent(1), samples2=latent(1), ratio=0.3)
    for dim in ("x", "-x", "y", "-y"):
        add("LatentConcat", samples1=latent(), samples2=latent(1), dim=dim)
    for dim, index, amount in (("x", 2, 3), ("y", -4, 9), ("y", 40, 2), ("t", 1, 2)):
        add("LatentCut", samples=latent(), dim=dim, index=index, amount=amount)
    for dim, size in (("x", 5), ("y", 40), ("t", 1)):
        add("LatentCutToBatch", samples=latent(), dim=dim, slice_size=size)
    for behavior in ("random", "fixed"):
        add("LatentBatchSeedBehavior", samples=latent(3, batch_index=[4, 5, 6]), seed_behavior=behavior)
        add("LatentBatchSeedBehavior", samples=latent(3), seed_behavior=behavior)
    tonemap = node("LatentOperationTonemapReinhard", multiplier=0.7)
    sharpen = node("LatentOperationSharpen", sharpen_radius=2, sigma=0.8, alpha=0.5)
    for operation in (tonemap, sharpen):
        add("LatentApplyOperation", samples=latent(), operation=operation)
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "bislerp"):
        for crop in ("disabled", "center"):
            add("LatentUpscale", samples=latent(), upscale_method=method, width=96, height=160, crop=crop)
        add("LatentUpscaleBy", samples=latent(), upscale_method=method, scale_by=1.3)
    add("RepeatLatentBatch", samples=latent(3, batch_index=[4, 5, 6], noise_mask=random(2, 1, 8, 8)), amount=2)
    add("SetLatentNoiseMask", samples=latent(), mask=random(9, 7))


def _shown(add: Any, conditioning: Any, image: Any, random: Any) -> None:
    for more in ({}, {"vae": FakeVae()}):
        prompt = {"clip": FakeClip(), "prompt": "make it {blue}", **more}
        add("TextEncodeQwenImageEdit", **prompt)
        add("TextEncodeQwenImageEdit", **prompt, image=random(1, 40, 52, 4))
        add("TextEncodeQwenImageEditPlus", **prompt)
        add("TextEncodeQwenImageEditPlus", **prompt, image1=random(1, 40, 52, 3), image3=random(1, 33, 21, 3))
    for size in ((24, 32), (29, 38)):
        inputs = {"positive": conditioning(), "negative": conditioning(), "vae": FakeVae(), "pixels": image(1, *size)}
        add("InstructPixToPixConditioning", **inputs)
        for noise_mask in (True, False):
            add("InpaintModelConditioning", mask=random(1, 20, 20), noise_mask=noise_mask, **inputs)
    states = SimpleNamespace(last_hidden_state=random(2, 5, 8), image_embeds=random(1, 8))
    masked = conditioning(attention_mask=random(1, 81, 81).half(), attention_mask_img_shape=(2, 2))
    for text in (conditioning(), masked):
        for kind in ("multiply", "attn_bias"):
            for strength in (1.0, 0.4):
                inputs = {"style_model": FakeStyle(), "clip_vision_output": states, "conditioning": text}
                add("StyleModelApply", strength=strength, strength_type=kind, **inputs)
    for strength in (0.0, 0.7):
        seen = conditioning(unclip_conditioning=[{"strength": 1.0}])
        add("unCLIPConditioning", conditioning=seen, clip_vision_output=1, strength=strength, noise_augmentation=0.2)


def _masks(add: Any, random: Any) -> None:
    mask = random(2, 9, 13)
    for each in (mask, mask[0]):
        add("MaskToImage", mask=each)
        add("CropMask", mask=each, x=3, y=2, width=5, height=20)
        add("FeatherMask", mask=each, left=3, top=20, right=1, bottom=4)
        add("ThresholdMask", mask=each, value=0.4)
        add("InvertMask", mask=each)
        for expand in (-2, 0, 1, 3):
            for tapered in (True, False):
                add("GrowMask", mask=each, expand=expand, tapered_corners=tapered)
    image = (random(2, 5, 4, 3) > 0.5).float()
    add("ImageColorToMask", image=image, color=0xFF00FF)
    add("SolidMask", value=0.3, width=5, height=7)
    for operation in ("multiply", "add", "subtract", "and", "or", "xor"):
        add("MaskComposite", destination=mask, source=random(2, 6, 6), x=9, y=1, operation=operation)
    add("BatchMasksNode", masks={"mask0": mask, "mask1": random(1, 6, 6), "mask2": mask + 1})
    add("ImageToMask", image=random(2, 5, 4, 4), channel="alpha")


def _images(add: Any, image: Any, random: Any) -> None:
    add("ImageInvert", image=image())
    add("EmptyImage", width=5, height=4, batch_size=2, color=0x10C0F0)
    for x, y in ((3, 5), (99, 99)):
        add("ImageCrop", image=image(), width=9, height=400, x=x, y=y)
    add("RepeatImageBatch", image=image(), amount=3)
    for index in (0, 2, -1, 9):
        add("ImageFromBatch", image=image(3), batch_index=index, length=2)
    add("ImageAddNoise", image=image(), seed=5, strength=0.3)
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        add("ImageRotate", image=image(), rotation=turn)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        add("ImageFlip", image=image(), flip_method=method)
    for mode in ("normal", "multiply", "screen", "overlay", "soft_light", "difference"):
        add("ImageBlend", image1=image(), image2=image(), blend_factor=0.6, blend_mode=mode)
    add("ImageBlend", image1=image(channels=4), image2=image(2, 20, 20), blend_factor=0.6, blend_mode="normal")
    for radius, sigma in ((1, 1.0), (5, 0.4)):
        add("ImageBlur", image=image(), blur_radius=radius, sigma=sigma)
        add("ImageSharpen", image=image(), sharpen_radius=radius, sigma=sigma, alpha=0.6)
    for dither in ("none", "floyd-steinberg", "bayer-2", "bayer-8"):
        add("ImageQuantize", image=image(), colors=6, dither=dither)
    for direction in ("right", "down", "left", "up"):
        for match in (True, False):
            for color, other in (("white", image(1, 18, 40)), ("red", image(2, 24, 32, 4))):
                spacing = {"spacing_width": 3, "spacing_color": color}
                add("ImageStitch", image1=image(), image2=other, direction=direction, match_image_size=match, **spacing)
    add("GetImageSize", image=image())
    add("BatchImagesNode", images={"image0": image(), "image1": image(1, 20, 20, 4), "image2": image()})
    add("RebatchImages", images=[image(3), image(2)], batch_size=[2])
    for channels in (3, 4):
        add("SplitImageWithAlpha", image=image(channels=channels))


def _sizes(add: Any, image: Any, random: Any) -> None:
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"):
        add("ImageScaleToTotalPixels", image=image(), upscale_method=method, megapixels=0.01, resolution_steps=8)
        add("ImageScaleToMaxDimension", image=image(), upscale_method=method, largest_size=50)
        for crop in ("disabled", "center"):
            add("ImageScale", image=image(), upscale_method=method, width=40, height=20, crop=crop)
    add("ImageScaleToMaxDimension", image=image(1, 40, 30), upscale_method="area", largest_size=17)
    add("ImageScaleToMaxDimension", image=image(1, 30, 30), upscale_method="area", largest_size=17)
    add("FluxKontextImageScale", image=image(1, 50, 30))
    for color, width in (("white", 50), ("black", 20)):
        size = {"target_width": width, "target_height": 40}
        add("ResizeAndPadImage", image=image(), padding_color=color, interpolation="bicubic", **size)
    choices: list[dict[str, Any]] = [
        {"resize_type": "scale dimensions", "width": 40, "height": 0, "crop": "center"},
        {"resize_type": "scale dimensions", "width": 0, "height": 0, "crop": "center"},
        {"resize_type": "scale dimensions", "width": 40, "height": 17, "crop": "disabled"},
        {"resize_type": "scale by multiplier", "multiplier": 1.3},
        {"resize_type": "scale longer dimension", "longer_size": 19},
        {"resize_type": "scale shorter dimension", "shorter_size": 19},
        {"resize_type": "scale width", "width": 19},
        {"resize_type": "scale height", "height": 19},
        {"resize_type": "scale width", "width": 0},
        {"resize_type": "scale total pixels", "megapixels": 0.01},
        {"resize_type": "match size", "match": random(1, 9, 11), "crop": "center"},
        {"resize_type": "scale to multiple", "multiple": 7},
        {"resize_type": "scale to multiple", "multiple": 8},
    ]
    for chosen in choices:
        for each in (image(), image(2, 33, 21), random(2, 24, 30)):
            for method in ("area", "lanczos"):
                add("ResizeImageMaskNode", input=each, resize_type=chosen, scale_method=method)


def _values(add: Any) -> None:
    add("PrimitiveInt", value=3)
    add("PrimitiveString", value="moss")
    for switch in (True, False):
        add("ComfySwitchNode", switch=switch, on_false=1, on_true="two")
    for value in (0, "", "x", [1]):
        add("ComfyNotNode", value=value)
        add("ComfyAndNode", values={"value0": value, "value1": True})
        add("ComfyOrNode", values={"value0": value, "value1": False})
    add("CustomCombo", choice="b", index=1, option0="a", option1="b")
    values = {"a": 3, "b": 2.5, "c": True}
    for expression in (
        "a + b", "a > 2048", "round(a / b) * 8", "sum(values)", "max(a, b, 7)", "pow(a, 2) + sqrt(b)", "a if c else b",
        "int(a) // 2", "log2(8) - abs(-a)", "min(values)", "a % 2 == 1 and not c",
    ):  # fmt: skip
        add("ComfyMathExpression", expression=expression, values=values)
    for ratio in ("1:1 (Square)", "9:16 (Portrait Widescreen)", "21:9 (Ultrawide)"):
        for megapixels, multiple in ((1.0, 8), (0.7, 64)):
            add("ResolutionSelector", aspect_ratio=ratio, megapixels=megapixels, multiple=multiple)
    for number in (True, 3, -2.7, " 12 ", "3.9", "1e3"):
        add("ComfyNumberConvert", value=number)
    add("CreateList", inputs={"input0": [1, 2], "input1": ["x"]})
    add("SeedNode", seed=7)


def _texts(add: Any) -> None:
    text = "The Quick (brown) fox.\n  jumps Over 12 and 345"
    add("StringConcatenate", string_a="a", string_b="b", delimiter=", ")
    for start, end in ((1, 5), (-4, -1), (3, 99)):
        add("StringSubstring", string=text, start=start, end=end)
    add("StringLength", string=text)
    for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
        add("CaseConverter", string=text, mode=mode)
    for mode in ("Both", "Left", "Right"):
        add("StringTrim", string="  x \n", mode=mode)
    add("StringReplace", string=text, find="o", replace="0")
    for sensitive in (True, False):
        add("StringContains", string=text, substring="quick", case_sensitive=sensitive)
        for mode in ("Starts With", "Ends With", "Equal"):
            add("StringCompare", string_a=text, string_b="the", mode=mode, case_sensitive=sensitive)
    flags = {"case_insensitive": True, "multiline": False, "dotall": True}
    for pattern in (r"\d+", r"(\w)(\w*)", "^jumps", "fox.*over", "nothing"):
        add("RegexMatch", string=text, regex_pattern=pattern, **flags)
        add("RegexReplace", string=text, regex_pattern=pattern, replace="<>", count=2, **flags)
        for mode in ("First Match", "All Matches", "First Group", "All Groups"):
            for group in (0, 1, 2):
                add("RegexExtract", string=text, regex_pattern=pattern, mode=mode, group_index=group, **flags)
    for content in ('{"a": 3, "b": null}', "[1]", "nothing"):
        for key in "ab":
            add("JsonExtractString", json_string=content, key=key)
    add("StringFormat", values={"a": 3, "b": "x"}, f_string="{a:03} {b!r}")


def _schedules(add: Any) -> None:
    extremes = {"sigma_max": 14.6, "sigma_min": 0.03}
    for steps in (1, 7):
        add("KarrasScheduler", steps=steps, rho=6.0, **extremes)
        add("ExponentialScheduler", steps=steps, **extremes)
        add("PolyexponentialScheduler", steps=steps, rho=1.4, **extremes)
        add("LaplaceScheduler", steps=steps, mu=0.2, beta=0.6, **extremes)
        add("VPScheduler", steps=steps, beta_d=19.9, beta_min=0.1, eps_s=0.001)
        for kind in ("eps", "flow"):
            add("BetaSamplingScheduler", model=("model", kind), steps=steps, alpha=0.5, beta=0.7)
        for kind in ("SD1", "SDXL", "SVD"):
            for denoise in (0.0, 0.4, 1.0):
                add("AlignYourStepsScheduler", model_type=kind, steps=steps + 3, denoise=denoise)
        for size in ((1024, 1024), (1536, 832), (64, 64)):
            add("Flux2Scheduler", steps=steps, width=size[0], height=size[1])
    for steps, denoise in ((1, 1.0), (4, 0.6)):
        add("SDTurboScheduler", model=("model", "eps"), steps=steps, denoise=denoise)
    sigmas = torch.tensor([14.0, 9.0, 3.0, 1.0, 0.0])
    for denoise in (1.0, 0.5, 0.3):
        add("SplitSigmasDenoise", sigmas=sigmas, denoise=denoise)
    add("FlipSigmas", sigmas=sigmas.clone())
    add("FlipSigmas", sigmas=torch.tensor([]))
    add("SetFirstSigma", sigmas=sigmas, sigma=100.0)
    for spacing in ("linear", "cosine", "sine"):
        inputs = {"sigmas": sigmas, "steps": 3, "end_at_sigma": 2.0, "spacing": spacing}
        for start in (-1.0, 10.0):
            add("ExtendIntermediateSigmas", start_at_sigma=start, **inputs)
    for percent in (0.0, 0.3, 1.0):
        for actual in (True, False):
            inputs = {"sampling_percent": percent, "return_actual_sigma": actual}
            add("SamplingPercentToSigma", model=("model", "eps"), **inputs)
    for text in ("1, 0.5", "0.909375 .725 0.421875; 0", ""):
        add("ManualSigmas", sigmas=text)


def _models(add: Any) -> None:
    for kind in ("eps", "flow"):
        model = ("model", kind)
        add("RescaleCFG", model=model, multiplier=0.6)
        for before in (True, False):
            for strength in (1.0, 0.5):
                add("CFGNorm", model=model, strength=strength, pre_cfg=before)
        add("CFGZeroStar", model=model)
        for shift in (1.0, 3.0):
            add("ModelSamplingSD3", model=model, shift=shift)
            add("ModelSamplingAuraFlow", model=model, shift=shift)
        for strength in (0.0, 0.4, 1.0):
            add("DifferentialDiffusion", model=model, strength=strength)
    for sampling in ("eps", "v_prediction", "lcm", "x0"):
        for zsnr in (True, False):
            add("ModelSamplingDiscrete", model=("model", "eps"), sampling=sampling, zsnr=zsnr)
    tonemap = node("LatentOperationTonemapReinhard", multiplier=0.7)
    add("LatentApplyOperationCFG", model=("model", "eps"), operation=tonemap)
