"""The scheduler nodes on the embedded host."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from naming import naming
from tessera.host.models.model_base import SD15
from tessera.host.nodes.custom_sampling import SamplerCustom
from tessera.host.runtime.patcher import ModelPatcher
from tessera.images import sheets
from tessera.nodes.scheduler import TesseraScheduler, TesseraSchedulerCompare, TesseraSchedulerKSampler, listed
from tessera.samplers import report
from tessera.samplers.registry import ENTRIES, NAMES, find
from tessera.tools import scheduler_page
from torch import Tensor

# numpy's about diffusers, and torchsde's about rounding.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Should have")
EIGHTEEN = """
    DDPMScheduler DDIMScheduler PNDMScheduler LMSDiscreteScheduler EulerDiscreteScheduler
    EulerAncestralDiscreteScheduler DPMSolverMultistepScheduler HeunDiscreteScheduler KDPM2DiscreteScheduler
    DPMSolverSinglestepScheduler KDPM2AncestralDiscreteScheduler UniPCMultistepScheduler DDIMInverseScheduler
    DEISMultistepScheduler IPNDMScheduler KarrasVeScheduler ScoreSdeVeScheduler LCMScheduler
"""


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


@pytest.fixture(autouse=True)
def images_elsewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.host.folder_paths.get_directory_by_type", lambda kind: str(tmp_path))


def text(value: float) -> list[list[Any]]:
    return [[torch.linspace(-value, value, 77 * 16).view(1, 77, 16), {}]]


def empty() -> dict[str, Any]:
    return {"samples": torch.zeros(1, 4, 16, 16)}


class HalfVAE:
    """Shows the first three channels of latents."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3].movedim(1, -1).sigmoid()


def sampled(model: Any, scheduler: str, **options: Any) -> Tensor:
    arguments: dict[str, Any] = {"seed": 5, "steps": 4, "cfg": 2.0, "spacing": "auto", "denoise": 1.0}
    arguments |= {"positive": text(1.0), "negative": text(-1.0), "latent_image": empty()} | options
    return TesseraSchedulerKSampler.execute(model, scheduler=scheduler, **arguments).args[0]["samples"]


def test_the_eighteen_names_come_first() -> None:
    assert NAMES[:18] == EIGHTEEN.split()


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_runs_on_a_model(name: str, model: ModelPatcher) -> None:
    assert sampled(model, name).isfinite().all()


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "KarrasVeScheduler"])
def test_both_ways_of_sampling_are_one(name: str, model: ModelPatcher) -> None:
    sampler, sigmas, _ = TesseraScheduler.execute(model, name, 4, 1.0, "auto").args
    latent = SamplerCustom.execute(model, True, 5, 2.0, text(1.0), text(-1.0), sampler, sigmas, empty())[0]
    assert torch.equal(latent["samples"], sampled(model, name))
    again = SamplerCustom.execute(model, True, 5, 2.0, text(1.0), text(-1.0), sampler, sigmas, empty())[0]
    assert torch.equal(latent["samples"], again["samples"])


def test_a_run_leaves_the_model_as_it_was(model: ModelPatcher) -> None:
    sampled(model, "EulerDiscreteScheduler", spacing="karras")
    assert "timestep" not in vars(model.get_model_object("model_sampling"))


def test_an_inversion_adds_no_noise(model: ModelPatcher) -> None:
    image = {"samples": torch.ones(1, 4, 16, 16)}
    first = sampled(model, "DDIMInverseScheduler", latent_image=image, cfg=1.0)
    assert torch.equal(first, sampled(model, "DDIMInverseScheduler", latent_image=image, cfg=1.0, seed=6))


def test_the_report_says_what_runs_and_what_to_watch(model: ModelPatcher) -> None:
    report = TesseraScheduler.execute(model, "ScoreSdeVeScheduler", 20, 1.0, "auto").args[2]
    assert "20 steps, 40 model calls, exponential spacing, sigma 14.61 to 0" in report
    assert "50 steps or more" in report
    report = TesseraScheduler.execute(model, "LCMScheduler", 4, 1.0, "auto").args[2]
    assert "distilled" in report
    assert "no step" in TesseraScheduler.execute(model, "DDIMScheduler", 20, 0.0, "auto").args[2]
    for spacing, idle in (("auto", False), ("karras", True)):
        report = TesseraScheduler.execute(model, "LCM", 4, 1.0, spacing, original_inference_steps=40).args[2]
        assert ("original_inference_steps has no effect with karras" in report) is idle


def test_options_reach_the_scheduler_or_are_refused(model: ModelPatcher) -> None:
    plain = sampled(model, "DPMSolverMultistepScheduler", steps=8)
    for options in ({"solver_order": 3}, {"algorithm_type": "sde-dpmsolver++"}, {"solver_type": "heun"}):
        assert not torch.equal(sampled(model, "DPMSolverMultistepScheduler", steps=8, **options), plain)
    with pytest.raises(ValueError, match=naming("algorithm_type", "DDIMScheduler")):
        sampled(model, "DDIMScheduler", algorithm_type="sde-dpmsolver++")


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.fewest[0] > 1])
def test_the_report_warns_below_the_fewest_steps_only(name: str) -> None:
    entry = find(name)
    for steps, warns in ((entry.fewest[0], False), (entry.fewest[0] - 1, True)):
        said = report.describe(entry, torch.linspace(14, 0, steps + 1), "linspace", steps, False)
        assert (f"{entry.fewest[0]} steps or more" in said) is warns
        assert f"{steps} steps, {report.model_calls(entry, torch.linspace(14, 0, steps + 1))} model calls" in said


def test_the_report_says_when_there_are_fewer_steps_than_were_asked_for() -> None:
    for asked, fewer in ((4, False), (5, True)):
        said = report.describe(find("DDIM"), torch.linspace(14, 0, 5), "linspace", asked, False)
        assert (f"{asked} steps were asked for" in said) is fewer
    assert "1 steps, 1 model calls" in report.describe(find("DDIM"), torch.tensor([1.0, 0.0]), "linspace", 1, False)
    assert "no step" in report.describe(find("DDIM"), torch.tensor([]), "linspace", 20, False)


def test_every_option_has_a_widget() -> None:
    widgets = {entry.id for entry in TesseraScheduler.define_schema().inputs}
    assert {option for entry in ENTRIES for option in entry.options} <= widgets


def test_widgets_fit_the_functions() -> None:
    for node in (TesseraScheduler, TesseraSchedulerKSampler, TesseraSchedulerCompare):
        named = inspect.signature(node.execute).parameters
        takes_options = any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
        widgets = {entry.id for entry in node.define_schema().inputs}
        assert widgets >= {name for name in named if name != "options"}
        assert takes_options or widgets == set(named)


def test_the_plot_falls_with_the_sigmas() -> None:
    plot = sheets.sigma_plot(torch.tensor([14.0, 5.0, 1.0, 0.1, 0.0]))
    assert plot.shape == (1, 240, 480, 3)
    blue = (plot[0, :, :, 2] - plot[0, :, :, 0]) > 0.2
    columns = [column for column in range(480) if blue[:, column].any()]
    heights = [float(blue[:, column].nonzero().float().mean()) for column in columns]
    assert heights[-1] > heights[len(heights) // 2] > heights[0]
    assert sheets.sigma_plot(torch.zeros(0)).shape == plot.shape


def test_the_sheet_holds_every_image(model: ModelPatcher) -> None:
    arguments: list[Any] = [model, HalfVAE(), text(1.0), text(-1.0), empty(), "DDIM, UniPCMultistep\nEulerDiscrete"]
    sheet, images, report = TesseraSchedulerCompare.execute(*arguments, 5, 4, 2.0, 1.0, "auto", 2).args
    assert images.shape == (3, 16, 16, 3)
    height = sheet.shape[1] // 2
    assert sheet.shape == (1, 2 * height, 32, 3)
    assert torch.equal(sheet[0, height - 16 : height, :16], images[0])
    assert torch.equal(sheet[0, 2 * height - 16 :, :16], images[2])
    assert report.count("model calls") == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [(" ,\n", "found none"), ("DDIM, UniPc", "UniPCMultistepScheduler"), ("DDIMInverse", "turns an image into noise")],
)
def test_wrong_lists_are_refused(names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(names)


def test_all_means_all_that_make_images() -> None:
    assert listed("All") == [name for name in NAMES if name != "DDIMInverseScheduler"]


def test_the_help_page_has_the_table_of_the_registry() -> None:
    page = scheduler_page.PAGE.read_text(encoding="utf-8")
    assert scheduler_page.with_table(page) == page, "run: python -m tessera.tools.scheduler_page"
