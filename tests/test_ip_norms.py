"""Group norms by area, for image prompts with masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.masks import pool
from tessera.ip_adapter.norms import AreaNorms, shares_of
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import Encoder, plain_image, random_adapter
from torch import Tensor, nn

LEFT = torch.zeros(64, 96)
LEFT[:, :48] = 1


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


@pytest.fixture
def loaded(sd15_unet: Any) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(sd15_unet, "base"), "base"), Encoder())


def _norm() -> nn.GroupNorm:
    norm = nn.GroupNorm(4, 8)
    with torch.no_grad():
        norm.weight.normal_(generator=torch.Generator().manual_seed(0))
        norm.bias.normal_(generator=torch.Generator().manual_seed(1))
    return norm


def _input(*shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    x[..., : shape[-1] // 2] += 3
    return x


@contextmanager
def _norms_apart(norm: nn.Module, masks: list[Tensor]) -> Iterator[None]:
    norms = AreaNorms()
    with norms.installed(norm), norms.acting(lambda grid, _: [(slice(None), _shares(masks, grid))]):
        yield


def _shares(masks: list[Tensor], grid: tuple[int, int]) -> Tensor:
    planes = pool(list(masks), grid)
    assert planes is not None
    return shares_of(planes)


def _apply(model: Any, loaded: LoadedAdapter, *masks: Tensor | None, apart: bool) -> Any:
    prompts = tuple(ImagePrompt(plain_image(0.2 + 0.5 * i), 0.8, "full", mask=mask) for i, mask in enumerate(masks))
    return TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded, keep_apart=apart).args[0]


def _sample(model: Any) -> Tensor:
    noise = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(7))
    text = [[torch.linspace(-1, 1, 77 * 16).view(1, 77, 16), {"pooled_output": torch.ones(1, 16)}]]
    return KSampler(model, 2, "euler", "normal").sample(noise, text, text, 2.0, torch.zeros_like(noise), seed=1)


@pytest.mark.parametrize("masks", [[LEFT], [LEFT, 1 - LEFT], [LEFT, LEFT]], ids=["one", "two", "twice the same"])
@torch.no_grad()
def test_an_area_is_normalised_as_if_it_were_alone(masks: list[Tensor]) -> None:
    norm, x = _norm(), _input(2, 8, 16, 24)
    with _norms_apart(norm, masks):
        found = norm(x)
    torch.testing.assert_close(found, torch.cat([norm(x[..., :12]), norm(x[..., 12:])], -1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_area_for_all_changes_nothing() -> None:
    norm, x = _norm(), _input(2, 8, 16, 24)
    with _norms_apart(norm, [torch.ones(64, 96)]):
        found = norm(x)
    torch.testing.assert_close(found, norm(x), rtol=1e-4, atol=1e-4)


def test_shares_sum_to_one_where_masks_overlap_or_leave_space() -> None:
    grey = torch.linspace(0, 1, 96).expand(64, 96)
    shares = _shares([LEFT, grey], (7, 11))
    assert shares.shape == (3, 77)
    torch.testing.assert_close(shares.sum(0), torch.ones(77))


def test_norms_over_sequences_stay_as_they_are_and_nothing_stays_behind() -> None:
    norm, x = _norm(), torch.randn(2, 8, 24)
    with pytest.raises(ZeroDivisionError), _norms_apart(norm, [LEFT]):
        torch.testing.assert_close(norm(x), nn.functional.group_norm(x, 4, norm.weight, norm.bias), rtol=0, atol=0)
        raise ZeroDivisionError
    assert not norm._forward_pre_hooks


def test_half_precision_keeps_its_type() -> None:
    norm = _norm().bfloat16()
    with _norms_apart(norm, [LEFT]):
        assert norm(_input(1, 8, 16, 24).bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_keep_apart_acts_with_masks_alone(model: ModelPatcher, loaded: LoadedAdapter) -> None:
    masks = (LEFT, 1 - LEFT)
    plain, apart = (_sample(_apply(model, loaded, *masks, apart=on)) for on in (False, True))
    assert (plain - apart).abs().max() > 1e-3
    assert torch.equal(
        _sample(_apply(model, loaded, None, apart=True)), _sample(_apply(model, loaded, None, apart=False))
    )
    norms = [layer for layer in model.model.diffusion_model.modules() if isinstance(layer, nn.GroupNorm)]
    assert norms and not any(norm._forward_pre_hooks for norm in norms)


@torch.no_grad()
def test_two_nodes_in_a_row_keep_all_areas_apart(model: ModelPatcher, loaded: LoadedAdapter) -> None:
    once = _sample(_apply(model, loaded, LEFT, LEFT.flip(1), apart=True))
    first = _apply(model, loaded, LEFT, apart=True)
    prompts = (ImagePrompt(plain_image(0.7), 0.8, "full", mask=LEFT.flip(1)),)
    both = TesseraApplyImagePrompts.execute(first, prompts, "sum", loaded).args[0]
    torch.testing.assert_close(_sample(both), once, rtol=1e-4, atol=1e-4)


def test_transformers_have_no_norms_to_keep_apart(flux_transformer: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(ValueError, match="keep_apart is for UNets"):
        _apply(ModelPatcher(Flux(flux_transformer), "cpu", "cpu"), loaded, LEFT, apart=True)
