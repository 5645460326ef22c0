"""No hook makes a GPU wait inside a denoising step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from no_sync import NoSync, WaitError
from scheduler_models import Model, levels, model_sampling
from tessera.guidance import flux_negative
from tessera.host.models.model_base import SD15, Flux
from tessera.host.nodes.patches import TomePatchModel
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.host.sampling.samplers import KSAMPLER
from tessera.ip_adapter.attend import COMBINES
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import KEY, RUN
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.run import RunMemory
from tessera.nodes.flux_negative import TesseraFluxNegative
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.seamless import TesseraSeamlessModel
from tessera.patching.schedule import LEVELS, KnownLevels
from tessera.patching.wrappers import installed
from tessera.samplers import registry, sampler
from tessera.tiling.dit import GRIDS
from tessera.tiling.hooks import PERIOD, SEED
from tiny_adapters import Encoder, plain_image, random_adapter, random_instantx, random_xlabs
from torch import Tensor

SIZE = (16, 24)
WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0]),
    "branch": lambda x: 1 if x.sum() > 0 else 2,
    "list": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "boolean index": lambda x: x[x > 0],
    "assignment": lambda x: x.clone().index_put_((x > 0,), torch.zeros(())),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
}
COPIES: dict[str, Callable[[Tensor], Any]] = {
    "to the device": lambda x: torch.ones(3).to(x),
    "copied in": lambda x: x.copy_(torch.ones(x.shape)),
    "a tensor of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "an index of numbers": lambda x: x[:, torch.tensor([0, 2]).to(x.device)],
}


@pytest.mark.parametrize("name", WAITS)
def test_the_mode_finds_waits(name: str) -> None:
    with pytest.raises(WaitError), NoSync("cpu"):
        WAITS[name](torch.ones(3, 3))


@pytest.mark.parametrize("name", [*WAITS, *COPIES])
def test_the_mode_finds_waits_of_a_device(name: str) -> None:
    with pytest.raises((WaitError, RuntimeError, NotImplementedError)), NoSync():
        (WAITS | COPIES)[name](torch.ones(3, 3, device="meta"))


def test_the_mode_lets_work_pass() -> None:
    x = torch.ones(3, 3, device="meta")
    with NoSync():
        y = torch.softmax(x @ x, 0)[:, 1:].mul_(2.0).to(torch.float16)
        torch.cat([y, y]).index_select(0, torch.zeros(2, dtype=torch.long, device="meta"))
    with NoSync("cpu", allowed=1) as mode:
        torch.ones(2).sum().item()
    assert [each.split(" at ")[0] for each in mode.found] == ["_local_scalar_dense"]
    assert "test_no_sync.py" in mode.found[0]


# A step on a device


def _call(model: Any, options: dict[str, Any], size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """The arguments of a call for two conditionings, on the device."""
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, **options}
    to |= {"cond_or_uncond": [1, 0], "uuids": ["b", "a"]}
    flux = isinstance(model.model, Flux)
    shapes = {"x": (2, 16 if flux else 4, *size), "t": (2,), "c_crossattn": (2, 7, 16)}
    shapes |= {"y": (2, 24), "guidance": (2,)} if flux else {}
    sigma = torch.ones(2, device="meta")
    found: dict[str, Any] = {name: torch.ones(shape, device="meta") for name, shape in shapes.items()}
    schedule = tuple(torch.linspace(1, 0, 21).tolist())
    return {**found, "transformer_options": {**to, "sigmas": sigma, LEVELS: KnownLevels(sigma, 0.2, schedule=schedule)}}


def _step(model: Any, options: dict[str, Any], size: tuple[int, int] = SIZE) -> None:
    """A call as the first one of a run, which may copy, and one after it, which may not."""
    model.model.to("meta")
    call = _call(model, options, size)
    model.model.apply_model(**call)
    with torch.no_grad(), NoSync():
        model.model.apply_model(**call)


@pytest.fixture
def sd15(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(copy.deepcopy(sd15_unet)), "cpu", "cpu")


@pytest.fixture
def flux(flux_transformer: Any) -> ModelPatcher:
    return ModelPatcher(Flux(copy.deepcopy(flux_transformer)), "cpu", "cpu")


MASKS = [None, torch.rand(*SIZE, generator=torch.Generator().manual_seed(0)), torch.ones(SIZE).tril()]


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_image_prompts(sd15: ModelPatcher, combine: str, masked: bool, apart: bool) -> None:
    """Masks, areas of a conditioning, ranges of which one is over, and group norms by area."""
    loaded = LoadedAdapter(parse_adapter(random_adapter(sd15.model.diffusion_model, "plus"), "plus"), Encoder())
    masks = MASKS if masked else [None] * 3
    prompts = [ImagePrompt(plain_image(0.2 + 0.2 * i), 0.7, "full", mask=mask) for i, mask in enumerate(masks)]
    prompts.insert(1, ImagePrompt(plain_image(0.9), 0.7, "full", 0.0, 0.3))
    applied = TesseraApplyImagePrompts.execute(sd15, tuple(prompts), combine, loaded, keep_apart=apart).args[0]
    memory = RunMemory.begin(installed(applied, KEY).kept, SIZE, names={"a": "positive", "b": "negative"})
    memory.note(0, [{"uuid": "a", "area": (8, 12, 0, 8)}])
    bounds = {LEVELS: None, RUN: memory}
    for size in (SIZE, (8, 12)) if masked else (SIZE,):
        if size != SIZE:
            memory.regions["b"] = memory.regions["a"]
        call = _call(applied, bounds, size)
        call["transformer_options"][LEVELS].bounds |= {0.0: 2.0, 0.3: 0.5}
        sd15.model.to("meta")
        sd15.model.apply_model(**call)
        with torch.no_grad(), NoSync():
            sd15.model.apply_model(**call)


@pytest.mark.parametrize("by", ["xlabs", "instantx"])
def test_image_prompts_in_flux(flux: ModelPatcher, by: str) -> None:
    make = random_xlabs if by == "xlabs" else random_instantx
    loaded = LoadedAdapter(parse_adapter(make(flux.model.diffusion_model), by), Encoder())
    prompts = tuple(ImagePrompt(plain_image(0.5), 0.7, "full", mask=mask) for mask in MASKS)
    applied = TesseraApplyImagePrompts.execute(flux, prompts, "sum", loaded).args[0]
    _step(applied, {RUN: RunMemory.begin(installed(applied, KEY).kept, SIZE)})


@pytest.mark.parametrize("method", ["circular", "rolling"])
@pytest.mark.parametrize("tiling", ["both", "horizontal"])
def test_seamless_unets(sd15: ModelPatcher, method: str, tiling: str) -> None:
    seamless = TesseraSeamlessModel.execute(sd15, tiling, 0.0, 1.0, method).args[0]
    _step(seamless, {PERIOD: SIZE, SEED: 3})


@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_token_merging(sd15: ModelPatcher, ratio: float) -> None:
    merging = TomePatchModel.execute(sd15, ratio).args[0]
    _step(merging, {})
    _step(TesseraSeamlessModel.execute(merging, "both", 0.0, 1.0, "circular").args[0], {PERIOD: SIZE, SEED: 3})


@pytest.mark.parametrize("method", ["torus_rope", "rolling"])
def test_seamless_transformers(flux: ModelPatcher, method: str) -> None:
    seamless = TesseraSeamlessModel.execute(flux, "both", 0.0, 1.0, method).args[0]
    found = torch.Tensor.cpu

    def positions(self: Tensor) -> Tensor:
        """Of the meta device there are no values to read in the first call."""
        return _ids(self) if self.is_meta else found(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", positions)
        _step(seamless, {PERIOD: SIZE, SEED: 3, GRIDS: {}})


def _ids(like: Tensor) -> Tensor:
    """Positions of Flux's image tokens, behind those of the text."""
    height, width = SIZE[0] // 2, SIZE[1] // 2
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([0 * rows, rows, columns], -1).reshape(-1, 3)
    text = torch.zeros(like.shape[-2] - len(image), 3)
    return torch.cat([text, image]).float().expand(like.shape)


@pytest.mark.parametrize("rows", ["all", "some"])
def test_flux_negative_in_attention(flux: ModelPatcher, rows: str) -> None:
    """Also where a batch holds rows of the negative prompt, which are not guided."""
    text = [[torch.ones(1, 5, 16), {"pooled_output": torch.ones(1, 24)}]]
    guided = TesseraFluxNegative.execute(flux, text, 3.0, "nag").args[0]
    state = flux_negative.RunState(torch.ones(1, 5, 16, device="meta"))
    flux.model.to("meta")
    call = _call(guided, {flux_negative.KEY: state})
    if rows == "all":
        call["transformer_options"] |= {"cond_or_uncond": [0], "uuids": ["a"]}
    flux.model.apply_model(**call)
    with torch.no_grad(), NoSync():
        flux.model.apply_model(**call)
    assert state.rewired is False


# Ranges of the schedule, on what stands for host and device


LIBRARIES = ("ip_adapter", "tiling", "guidance", "patching", "samplers")


def _is_ours(found: str) -> bool:
    """Whether a library waits, and not the host, or diffusers, whose networks it runs."""
    return any(f"/{name}/" in found for name in LIBRARIES) and "/site-packages/" not in found


def _predictions(waits: list[int]) -> KSAMPLER:
    """A sampler that counts the waits of each prediction, hooks of all kinds included."""

    def sample(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
        for sigma in sigmas[:-1]:
            given = x, sigma * x.new_ones(len(x))
            with NoSync("cpu", allowed=99) as mode:
                x = 0.5 * x + 0.5 * model(*given, **extra_args)
            waits.append(sum(_is_ours(each) for each in mode.found))
        return x

    return KSAMPLER(sample)


def _waits(model: Any, shape: tuple[int, ...], text: Any) -> list[int]:
    waits: list[int] = []
    run = KSampler(model, 4, "euler", "normal")
    run_sampler = _predictions(waits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tessera.host.sampling.ksampler.sampler_object", lambda _: run_sampler)
        run.sample(torch.randn(shape), text, text, 2.0, torch.zeros(shape), seed=1)
    return waits


def _hooked(model: Any, start: float, end: float) -> Iterator[tuple[Any, bool]]:
    """A model with each kind of hook, and with several at once; whether it has to know the step."""
    if isinstance(model.model, Flux):
        text = [[torch.ones(1, 5, 16), {"pooled_output": torch.ones(1, 24)}]]
        for method in ("nag", "cfg"):
            yield TesseraFluxNegative.execute(model, text, 3.0, method, start, end).args[0], False
        yield TesseraSeamlessModel.execute(model, "both", start, end, "rolling").args[0], True
        return
    loaded = LoadedAdapter(parse_adapter(random_adapter(model.model.diffusion_model), "base"), Encoder())
    prompts = tuple(ImagePrompt(plain_image(c), 0.7, "full", start, end) for c in (0.2, 0.8))
    images = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]
    seamless = TesseraSeamlessModel.execute(model, "both", start, end, "circular").args[0]
    both = TesseraApplyImagePrompts.execute(seamless, prompts, "sum", loaded).args[0]
    yield from ((images, False), (seamless, False), (both, False))


@pytest.mark.parametrize("kind", ["sd15", "flux"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.0, 0.6), (0.3, 0.9)])
def test_a_range_waits_once_a_step(kind: str, start: float, end: float, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    flux = kind == "flux"
    shape, pooled = ((1, 16, 8, 8), 24) if flux else ((1, 4, 16, 16), 16)
    text = [[torch.ones(1, 7, 16), {"pooled_output": torch.ones(1, pooled)}]]
    for hooked, asks in _hooked(model, start, end):
        ranged = (start, end) != (0.0, 1.0)
        # Whether the first look of a CPU divides into areas does not matter to a device.
        assert _waits(hooked, shape, text)[1:] == [int(ranged or asks)] * 3


# Schedulers of diffusers


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler"])
def test_the_bridge_to_diffusers_schedulers(name: str) -> None:
    """From the first answer of the model to its last."""
    model = Model("epsilon", denoiser=lambda x, sigma: x / (1 + sigma))
    model.model_sampling = model_sampling("epsilon")
    model.latent_image, model.noise = None, None
    mode, calls = NoSync(), []

    def answer(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            mode.__enter__()
        if len(calls) == 6:
            mode.__exit__(None, None, None)
        return x / (1 + sigma.reshape(-1, 1, 1, 1))

    sigmas = levels(name, model, 6)
    x = torch.ones(1, 4, 8, 8, device="meta")
    wrapped = Model("epsilon", denoiser=lambda *_: x)
    wrapped.__class__ = type("Called", (Model,), {"__call__": lambda self, *a, **k: answer(*a, **k)})
    with pytest.raises((RuntimeError, NotImplementedError), match="meta|item"):
        # The only look at values is the one at the end, which meta tensors cannot give.
        sampler.sample(wrapped, x, sigmas, {"seed": 1}, choice=sampler.Choice(registry.find(name), {}, "portable"))
    assert len(calls) == 6
