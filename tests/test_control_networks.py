"""ControlNets in the embedded host: loaded from every layout, attached as in ComfyUI, equal to diffusers' pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from naming import naming
from safetensors.torch import save_file
from tessera.host.layouts.ldm_unet import convert_controlnet, unet_sources
from tessera.host.models.control_loading import load_controlnet, make_controlnet
from tessera.host.models.control_networks import ControlNet, FluxControlNet, broadcast_hint, merge, spread
from tessera.host.models.model_base import SD15, SDXL, Flux
from tessera.host.models.patches import patchify
from tessera.host.models.vae import VAE
from tessera.host.nodes.control import NODES, Canny, ControlNetApplyAdvanced
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.guiders import CFGGuider
from tessera.host.sampling.samplers import sampler_object
from tessera.nodes.scheduler import TesseraSchedulerKSampler
from tessera.nodes.seamless import TesseraSeamlessModel
from tiny_models import FLUX, SDXL_UNET, UNET, flux_weights, random_weights, save_component, unet_weights
from torch import Tensor

SHAPE = (1, 4, 8, 8)
UP = {"up_block_types", "out_channels"}
CONTROL = {name: value for name, value in UNET.items() if name not in UP}
SDXL_CONTROL = {name: value for name, value in SDXL_UNET.items() if name not in UP}
CONFIGS = {"sd15": CONTROL, "sdxl": SDXL_CONTROL}


def close(found: Tensor, expected: Tensor, parts: float = 1e-5) -> bool:
    """Whether both differ by at most so many parts of the greatest value."""
    return bool((found - expected).abs().max() <= parts * expected.abs().max())


def weights(config: dict[str, Any], seed: int = 5) -> dict[str, Tensor]:
    """Of diffusers' ControlNet; `random_weights` takes the convolutions of the image for embeddings."""
    state = random_weights(ControlNetModel.from_config(config), seed)
    convolutions = (key for key in state if key.startswith("controlnet_cond_embedding") and key.endswith("weight"))
    return state | {key: state[key] * 2 * state[key][0].numel() ** -0.5 for key in convolutions}


def flux_control(seed: int = 6) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = {**FLUX, "num_layers": 1, "num_single_layers": 1}
    return config, random_weights(FluxControlNetModel.from_config(config), seed)


def filled(module: Any, state: dict[str, Tensor]) -> Any:
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the layout of the first ControlNets."""
    shared = {key: tensor for key, tensor in state.items() if not key.startswith("controlnet_")}
    out = {source.key: shared[key] for key, source in unet_sources(shared).items()}
    blocks = len({key.split(".")[2] for key in state if key.startswith("controlnet_cond_embedding.blocks.")})
    places = {"controlnet_cond_embedding.conv_in": "input_hint_block.0", "controlnet_mid_block": "middle_block_out.0"}
    places["controlnet_cond_embedding.conv_out"] = f"input_hint_block.{2 * (blocks + 1)}"
    places |= {f"controlnet_cond_embedding.blocks.{i}": f"input_hint_block.{2 * (i + 1)}" for i in range(blocks)}
    places |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(20)}
    for new, old in places.items():
        out |= {f"{old}.{kind}": state[f"{new}.{kind}"] for kind in ("weight", "bias") if f"{new}.{kind}" in state}
    assert len(out) == len(state)
    return out


def same(one: Any, other: Any) -> bool:
    a, b = one.control_model.state_dict(), other.control_model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_layout_gives_one_network(family: str, tmp_path: Path) -> None:
    state = weights(CONFIGS[family])
    save_file(state, tmp_path / "diffusers.safetensors")
    save_file(original(state), tmp_path / "bare.safetensors")
    save_file({f"control_model.{key}": value for key, value in original(state).items()}, tmp_path / "o.safetensors")
    save_component(tmp_path / "folder", "ControlNetModel", CONFIGS[family], state, "diffusion_pytorch_model")
    loaded = [load_controlnet(path) for path in sorted(tmp_path.iterdir())]
    assert len(loaded) == 4
    assert all(type(each) is ControlNet and same(each, loaded[0]) for each in loaded)
    for key in ("attention_head_dim", "use_linear_projection", "addition_embed_type"):
        assert len({str(each.control_model.config[key]) for each in loaded}) == 1, key


def test_the_original_layout_is_converted_as_diffusers_does() -> None:
    state = original(weights(CONTROL))
    wanted = convert_controlnet_checkpoint(state, {"layers_per_block": CONTROL["layers_per_block"]})
    torch.testing.assert_close(convert_controlnet(state), wanted, rtol=0, atol=0)


def test_flux_is_loaded_from_a_file_and_a_folder(tmp_path: Path) -> None:
    config, state = flux_control()
    save_file(state, tmp_path / "flux.safetensors")
    save_component(tmp_path / "folder", "FluxControlNetModel", config, state, "diffusion_pytorch_model")
    one, other = (load_controlnet(tmp_path / name) for name in ("flux.safetensors", "folder"))
    assert isinstance(one, FluxControlNet)
    assert isinstance(other, FluxControlNet)
    assert same(one, other)


def test_a_network_without_attention_is_loaded() -> None:
    config = SDXL_CONTROL | {"down_block_types": ["DownBlock2D"] * 2, "mid_block_type": "UNetMidBlock2D"}
    network = make_controlnet(weights(config)).control_model
    assert not [name for name, _ in network.named_modules() if "transformer_blocks" in name]


def test_shuffling_networks_act_by_the_mean(tmp_path: Path) -> None:
    state = weights(CONTROL)
    for name in ("control_v11e_sd15_shuffle.safetensors", "plain.safetensors"):
        save_file(original(state), tmp_path / name)
    pooled, plain = (load_controlnet(path).control_model for path in sorted(tmp_path.iterdir()))
    assert pooled.config.global_pool_conditions
    assert not plain.config.global_pool_conditions


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["lora_controlnet"], "control LoRA"),
        (["task_embedding"], "union"),
        (["adapter.body.0.resnets.0.block1.weight"], "T2I adapter"),
        (["weight"], "it has weight, expected a ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight", "x.weight_scale"], "quantized"),
    ],
)
def test_other_files_are_named(keys: list[str], said: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"^other.safetensors: .*" + said) as caught:
        load_controlnet(tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)


def test_incomplete_weights_are_refused() -> None:
    state = original(weights(CONTROL))
    with pytest.raises(ValueError, match=naming("controlnet_down_blocks.1.weight")):
        make_controlnet({key: tensor for key, tensor in state.items() if key != "zero_convs.1.0.weight"})
    with pytest.raises(ValueError, match="another architecture"):
        make_controlnet(state | {"input_blocks.1.0.something": torch.zeros(1)})


def unet() -> Any:
    return filled(UNet2DConditionModel.from_config(UNET), unet_weights(UNET))


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    return ModelPatcher(SD15(unet()), "cpu", "cpu")


def image(seed: int = 0, count: int = 1, side: int = 64) -> Tensor:
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(seed))


def text(seed: int, width: int = 64, **values: Any) -> list[list[Any]]:
    return [[torch.randn(1, 5, width, generator=torch.Generator().manual_seed(seed)), values]]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(9))


def apply(positive: Any, negative: Any, net: ControlNet, image: Tensor, *acts: float, vae: Any = None) -> Any:
    strength, start, end = (*acts, *(1.0, 0.0, 1.0)[len(acts) :])
    return ControlNetApplyAdvanced.execute(positive, negative, net, image, strength, start, end, vae).result


def sample(model: ModelPatcher, positive: Any, negative: Any, steps: int = 3, x: Tensor | None = None) -> Tensor:
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(3.0)
    x = noise() if x is None else x
    sigmas = torch.linspace(10, 0, steps + 1)
    return guider.sample(x, torch.zeros_like(x), sampler_object("euler"), sigmas, disable_pbar=True, seed=1)


def test_images_are_those_of_diffusers_pipeline(model: ModelPatcher, autoencoder: Any) -> None:
    """Two networks, one of which acts in a part of the steps only."""
    nets = [filled(ControlNetModel.from_config(CONTROL), weights(CONTROL, seed)) for seed in (5, 6)]
    positive, negative = text(1), text(2)
    kinds = {"timestep_spacing": "leading", "steps_offset": 1}
    levels = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    made: Any = StableDiffusionControlNetPipeline(
        autoencoder,
        text_encoder=None,  # pyright: ignore[reportArgumentType]
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        unet=unet(),
        controlnet=MultiControlNetModel(nets),
        scheduler=EulerDiscreteScheduler(**levels, **kinds),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    hints = [image(0), image(1)]
    expected = made(
        prompt_embeds=positive[0][0],
        negative_prompt_embeds=negative[0][0],
        image=[hint.movedim(-1, 1) for hint in hints],
        controlnet_conditioning_scale=[0.8, 1.3],
        control_guidance_start=[0.0, 0.0],
        control_guidance_end=[1.0, 0.5],
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise(),
        output_type="latent",
    ).images

    ends = 0.5  # of the schedule in timesteps, where diffusers counts steps: the same for evenly spaced ones
    for net, hint, acts in zip(nets, hints, ((0.8, 0.0, 1.0), (1.3, 0.0, ends)), strict=True):
        positive, negative = apply(positive, negative, ControlNet(net), hint, *acts)
    found = run_diffusers(model, positive, negative)
    assert close(found, expected)


def run_diffusers(model: ModelPatcher, positive: Any, negative: Any) -> Tensor:
    """Four steps of diffusers' Euler from `noise()`, in diffusers' scale of latents."""
    latent = {"samples": torch.zeros(SHAPE)}
    fixed = model.clone()

    def with_noise(executor: Any, _: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return executor(noise(), *args, **kwargs)

    fixed.add_wrapper_with_key("outer_sample", "noise", with_noise)
    run = TesseraSchedulerKSampler.execute
    result = run(fixed, 0, 4, 3.0, "EulerDiscreteScheduler", positive, negative, latent, "leading", 1.0).result
    assert result is not None
    return model.model.process_latent_in(result[0]["samples"])


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_one_step_is_that_of_diffusers_modules(family: str) -> None:
    config = {"sd15": UNET, "sdxl": SDXL_UNET}[family]
    network = filled(UNet2DConditionModel.from_config(config), unet_weights(config))
    model = ModelPatcher((SD15 if family == "sd15" else SDXL)(network), "cpu", "cpu")
    net = make_controlnet(weights(CONFIGS[family]))
    sized = {"pooled_output": noise(1, 128)} if family == "sdxl" else {}
    positive, _ = apply(text(1, config["cross_attention_dim"], **sized), [], net, image(), 0.7)
    guider = CFGGuider(model)
    guider.set_conds(positive, [])
    guider.set_cfg(1.0)
    sigmas, x = torch.tensor([7.0, 0.0]), noise()
    found = guider.sample(x, torch.zeros_like(x), sampler_object("euler"), sigmas, disable_pbar=True)

    sampling = model.model.model_sampling
    x = sampling.noise_scaling(sigmas[0], x, torch.zeros_like(x))
    scaled, t = sampling.calculate_input(sigmas[:1], x), sampling.timestep(sigmas[:1]).float()
    ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    added: Any = {"text_embeds": sized["pooled_output"], "time_ids": ids} if sized else None
    embedding = positive[0][0]
    down, middle = net.control_model(
        scaled, t, embedding, image().movedim(-1, 1), 0.7, added_cond_kwargs=added, return_dict=False
    )
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    output = network(scaled, t, embedding, added_cond_kwargs=added, **residuals, return_dict=False)[0]
    expected = model.model.process_latent_out(sampling.calculate_denoised(sigmas[:1], output, x))
    assert close(found, expected)
    assert not close(found, sample_once(model, text(1, config["cross_attention_dim"], **sized)), 1e-3)


def sample_once(model: ModelPatcher, positive: Any) -> Tensor:
    guider = CFGGuider(model)
    guider.set_conds(positive, [])
    guider.set_cfg(1.0)
    x = noise()
    return guider.sample(x, torch.zeros_like(x), sampler_object("euler"), torch.tensor([7.0, 0.0]), disable_pbar=True)


class Encoder:
    """Stands for Flux's VAE: the mean colour of each 8 x 8 px in 16 channels."""

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1).mean(1, keepdim=True), 8).repeat(1, 16, 1, 1)


def test_flux_is_that_of_diffusers_modules() -> None:
    transformer = filled(FluxTransformer2DModel.from_config(FLUX), flux_weights())
    plain = filled(FluxTransformer2DModel.from_config(FLUX), flux_weights())
    model = ModelPatcher(Flux(transformer), "cpu", "cpu")
    net: Any = make_controlnet(flux_control()[1])
    values = {"pooled_output": noise(1, 64), "guidance": 2.5}
    positive, _ = apply(text(1, 32, **values), [], net, image(), 0.6, vae=Encoder())
    guider = CFGGuider(model)
    guider.set_conds(positive, [])
    guider.set_cfg(1.0)
    x, sigmas = noise(1, 16, 8, 8), torch.tensor([0.7, 0.0])
    found = guider.sample(x, torch.zeros_like(x), sampler_object("euler"), sigmas, disable_pbar=True)

    x = 0.7 * x
    tokens, ids = patchify(x)
    hint = patchify(model.model.process_latent_in(Encoder().encode(image())))[0]
    shared = {
        "encoder_hidden_states": positive[0][0],
        "pooled_projections": values["pooled_output"],
        "timestep": sigmas[:1],
        "img_ids": ids,
        "txt_ids": torch.zeros(5, 3),
        "guidance": torch.tensor([2.5]),
        "return_dict": False,
    }
    double, single = net.control_model(tokens, hint, conditioning_scale=0.6, **shared)
    added = {"controlnet_block_samples": double, "controlnet_single_block_samples": single}
    output = plain(hidden_states=tokens, **added, **shared)[0]
    b, h, w = 1, 4, 4
    velocity = output.reshape(b, h, w, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 16, 8, 8)
    expected = model.model.process_latent_out(x - 0.7 * velocity)
    assert close(found, expected)


def test_flux_networks_need_a_vae() -> None:
    with pytest.raises(ValueError, match=naming("VAE", "vae")):
        apply(text(1), text(2), make_controlnet(flux_control()[1]), image())


def test_networks_of_another_family_are_refused(model: ModelPatcher) -> None:
    positive, negative = apply(text(1), text(2), make_controlnet(weights(SDXL_CONTROL)), image())
    with pytest.raises(ValueError, match=naming("text", 192, 64)):
        sample(model, positive, negative)


@pytest.fixture(scope="module")
def net() -> ControlNet:
    return make_controlnet(weights(CONTROL))


def test_strength_of_zero_is_off(model: ModelPatcher, net: ControlNet) -> None:
    positive, negative = text(1), text(2)
    assert apply(positive, negative, net, image(), 0.0) == (positive, negative)
    plain = sample(model, positive, negative)
    assert not close(sample(model, *apply(positive, negative, net, image())), plain, 1e-2)
    assert torch.equal(sample(model, positive, negative), plain)
    weak = sample(model, *apply(positive, negative, net, image(), 1e-6))
    assert close(weak, plain, 1e-3)


def test_outside_its_range_it_does_nothing(model: ModelPatcher, net: ControlNet) -> None:
    positive, negative = text(1), text(2)
    plain, full = (sample(model, positive, negative), sample(model, *apply(positive, negative, net, image())))
    never = sample(model, *apply(positive, negative, net, image(), 1.0, 0.0, 0.0))
    assert torch.equal(never, plain)
    begin = sample(model, *apply(positive, negative, net, image(), 1.0, 0.0, 0.15))
    assert not close(begin, full, 1e-3)
    assert not close(begin, plain, 1e-3)


def test_a_chain_adds_up_and_conditionings_share_it(net: ControlNet) -> None:
    positive, negative = apply(text(1), text(2), net, image(0), 0.5)
    assert positive[0][1]["control"] is negative[0][1]["control"]
    positive, negative = apply(positive, negative, net, image(1), 0.25)
    last = positive[0][1]["control"]
    assert last is negative[0][1]["control"]
    assert [each.strength for each in last.chain()] == [0.25, 0.5]
    assert positive[0][1]["control_apply_to_uncond"] is False
    mixed, _ = apply(text(1) + [[text(1)[0][0], {"control": last}]], text(2), net, image())
    assert mixed[0][1]["control"] is not mixed[1][1]["control"]
    assert net.previous_controlnet is None


def test_the_network_is_asked_once_for_both_prompts(model: ModelPatcher, net: ControlNet) -> None:
    seen = []
    hook = net.control_model.register_forward_hook(lambda *args: seen.append(args[1][0].shape[0]))
    sample(model, *apply(text(1), text(2), net, image()), steps=3)
    hook.remove()
    assert seen == [2, 2, 2]


def test_a_run_leaves_nothing_behind(model: ModelPatcher, net: ControlNet) -> None:
    positive, negative = apply(text(1), text(2), net, image())
    first = sample(model, positive, negative)
    control = positive[0][1]["control"]
    assert control.cond_hint is None
    assert control.model_sampling is None
    assert not net.control_model_wrapped.patched_by
    assert torch.equal(sample(model, positive, negative), first)


def test_a_image_of_another_size_is_cut_and_scaled(model: ModelPatcher, net: ControlNet) -> None:
    positive, negative = apply(text(1), text(2), net, image(side=64))
    wide = torch.nn.functional.pad(image(side=64), (0, 0, 32, 32))
    assert torch.equal(sample(model, *apply(text(1), text(2), net, wide)), sample(model, positive, negative))
    large = image().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(sample(model, *apply(text(1), text(2), net, large)), sample(model, positive, negative))


def test_each_image_of_a_batch_guides_its_own_sample(model: ModelPatcher, net: ControlNet) -> None:
    both = sample(model, *apply(text(1), text(2), net, image(count=2)), x=noise().repeat(2, 1, 1, 1))
    for number in (0, 1):
        alone = sample(model, *apply(text(1), text(2), net, image(count=2)[number : number + 1]))
        assert close(both[number], alone[0])


def test_seamless_models_make_their_networks_periodic(model: ModelPatcher, net: ControlNet) -> None:
    """An image, its control and its noise moved around the torus give the same image, moved."""
    seamless = TesseraSeamlessModel.execute(model, "both", 0.0, 1.0, "auto").args[0]
    assert isinstance(seamless, ModelPatcher)

    def drawn(shift: int) -> Tensor:
        moved = image().roll((8 * shift, 8 * shift), (1, 2))
        return sample(seamless, *apply(text(1), text(2), net, moved), x=noise().roll((shift, shift), (2, 3)))

    # The UNet's own levels halve, so even steps are whole ones on every level.
    assert close(drawn(2), drawn(0).roll((2, 2), (2, 3)))
    assert not close(drawn(2), drawn(0), 1e-2)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 6])
def test_additions_are_spread_as_diffusers_does(blocks: int) -> None:
    samples = [torch.tensor(float(i)) for i in range(min(blocks, 3))]
    interval = -(-blocks // len(samples))
    assert spread(samples, blocks) == [samples[i // interval] for i in range(blocks)]


def test_additions_merge_where_there_are_two() -> None:
    one = {"input": [], "middle": [torch.ones(1)], "output": [None, torch.ones(1)]}
    two = {"input": [torch.ones(1)], "middle": [torch.ones(1)], "output": [torch.ones(1), None, None]}
    merged = merge(one, two)
    assert [len(merged[place]) for place in ("input", "middle", "output")] == [1, 1, 3]
    assert merged["middle"][0] == 2
    assert merged["output"][2] is None


def test_images_are_repeated_for_each_conditioning() -> None:
    hint = torch.arange(2.0).reshape(2, 1)
    assert broadcast_hint(hint, 6, 2).flatten().tolist() == [0, 1, 0, 0, 1, 0]
    assert broadcast_hint(hint[:1], 3, 1).shape == (3, 1)


def test_canny_finds_the_outline_of_a_square() -> None:
    image = torch.zeros(1, 24, 24, 3)
    image[:, 8:16, 8:16] = 1.0
    edges = Canny.execute(image, 0.4, 0.8).args[0]
    assert isinstance(edges, Tensor)
    assert edges.shape == image.shape
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    assert not edges[:, 10:14, 10:14].any()
    assert edges[0, 7:9, 9:15, 0].any(0).all()
    assert not Canny.execute(torch.full((1, 8, 8, 3), 0.3), 0.01, 0.02).args[0].any()  # pyright: ignore


def test_canny_keeps_weak_edges_that_touch_strong_ones() -> None:
    ramp = torch.linspace(0.1, 1.0, 32)[:, None] * (torch.arange(32) >= 16)
    image = ramp[None, :, :, None].repeat(1, 1, 1, 3)
    weak, strong = (Canny.execute(image, low, 0.9).args[0] for low in (0.3, 0.9))
    assert weak[..., 14:18, :].sum() > strong[..., 14:18, :].sum() > 0
    with pytest.raises(ValueError, match=naming("low_threshold", 0.9)):
        Canny.execute(image, 0.9, 0.3)


@pytest.mark.parametrize("node", NODES)
def test_nodes_explain_themselves(node: Any) -> None:
    schema = node.define_schema()
    assert schema.description.endswith(".")
    assert all(slot.tooltip and slot.tooltip.endswith(".") for slot in [*schema.inputs, *schema.outputs])


def test_workflow_runs_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tessera.app.cli.main import main
    from tiny_models import sd15_folder

    models = tmp_path / "models"
    sd15_folder(models / "checkpoints" / "tiny")
    (models / "controlnet").mkdir(parents=True)
    save_file(original(weights(CONTROL)), models / "controlnet" / "canny.safetensors")
    graph = {
        "1": node_of("CheckpointLoaderSimple", ckpt_name="tiny"),
        "2": node_of("CLIPTextEncode", clip=["1", 1], text="moss"),
        "3": node_of("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node_of("VAEDecode", samples=["3", 0], vae=["1", 2]),
        "5": node_of("Canny", image=["4", 0], low_threshold=0.1, high_threshold=0.2),
        "6": node_of("ControlNetLoader", control_net_name="canny.safetensors"),
        "7": node_of("ControlNetApplyAdvanced", positive=["2", 0], negative=["2", 0], control_net=["6", 0]) | {},
        "8": node_of("KSampler", model=["1", 0], positive=["7", 0], negative=["7", 1], latent_image=["3", 0]),
        "9": node_of("VAEDecode", samples=["8", 0], vae=["1", 2]),
        "10": node_of("SaveImage", images=["9", 0], filename_prefix="t"),
    }
    graph["7"]["inputs"] |= {"image": ["5", 0], "strength": 0.9, "start_percent": 0.0, "end_percent": 0.8}
    graph["8"]["inputs"] |= {"seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    graph["8"]["inputs"]["denoise"] = 1.0
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    folders = ["--models-dir", str(models), "--output-dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["run", str(path), *folders]) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def node_of(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def test_vae_of_the_host_encodes_images_for_flux(autoencoder: Any) -> None:
    net = make_controlnet(flux_control()[1])
    attached = apply(text(1), text(2), net, image(), vae=VAE(autoencoder))[0][0][1]["control"]
    assert attached.vae is not None
    assert (
        apply(text(1), text(2), make_controlnet(weights(CONTROL)), image(), vae=VAE(autoencoder))[0][0][1][
            "control"
        ].vae
        is None
    )
