"""Hooks inside the embedded host's Flux, under ComfyUI's names and with its arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import Flux
from tessera.host.models.patches import patchify, unpatchify
from torch import Tensor

LENGTH, IMAGE = 7, 15


@pytest.fixture
def model(flux_transformer: Any) -> Flux:
    return Flux(flux_transformer)


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (2, 16, 6, 10), (2, LENGTH, 16), (2, 24)
    x, text, pooled = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, torch.tensor([0.3, 0.8]), text, pooled, torch.tensor([3.5, 2.0])


def _run(model: Flux, control: Any = None, mask: Tensor | None = None, **options: Any) -> Tensor:
    return model.forward_transformer(
        *_inputs(), control=control, transformer_options=options, **({} if mask is None else {"attention_mask": mask})
    )


def test_without_hooks_it_is_diffusers_own_forward(model: Flux) -> None:
    x, t, text, pooled, guidance = _inputs()
    tokens, ids = patchify(x)
    expected = model.diffusion_model(
        tokens,
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t,
        img_ids=ids,
        txt_ids=ids.new_zeros(LENGTH, 3),
        guidance=guidance,
        return_dict=False,
    )[0]
    assert torch.equal(_run(model), unpatchify(expected, 6, 10))


def test_an_attention_override_gets_every_block_and_may_pass_it_on(model: Flux) -> None:
    seen: list[tuple[Any, ...]] = []

    def override(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs: Any) -> Tensor:
        options = kwargs["transformer_options"]
        seen.append((options["block_type"], options["block_index"], options["img_slice"], tuple(q.shape), heads))
        assert kwargs["skip_reshape"] and kwargs["mask"] is None and function is optimized_attention
        return function(q, k, v, heads, **kwargs)

    assert torch.equal(_run(model, optimized_attention_override=override), _run(model))
    blocks = [("double", 0), ("double", 1), ("single", 0), ("single", 1)]
    assert seen == [(*block, [LENGTH, LENGTH + IMAGE], (2, 2, LENGTH + IMAGE, 16), 2) for block in blocks]


def test_patches_of_attention_see_and_change_its_inputs_and_outputs(model: Flux) -> None:
    calls: list[str] = []

    def before(q: Tensor, k: Tensor, v: Tensor, pe: Any, attn_mask: Any, extra_options: dict[str, Any]) -> Any:
        calls.append(f"{extra_options['block_type']} in")
        return {"v": torch.zeros_like(v)}

    def after(output: Tensor, extra_options: dict[str, Any]) -> Tensor:
        calls.append(f"{extra_options['block_type']} out")
        assert not output.any() and output.shape == (2, LENGTH + IMAGE, 32)
        return output

    changed = _run(model, patches={"attn1_patch": [before], "attn1_output_patch": [after]})
    assert calls == ["double in", "double out"] * 2 + ["single in", "single out"] * 2
    assert not torch.equal(changed, _run(model))


def test_post_input_may_add_tokens(model: Flux) -> None:
    def add(values: dict[str, Any]) -> dict[str, Any]:
        assert values["txt_ids"].shape == (2, LENGTH, 3) and values["img_ids"].shape == (2, IMAGE, 3)
        return {name: torch.cat([values[name], values[name][:, :1]], 1) for name in ("txt", "txt_ids")}

    x, t, text, pooled, guidance = _inputs()
    longer = model.forward_transformer(x, t, torch.cat([text, text[:, :1]], 1), pooled, guidance)
    torch.testing.assert_close(_run(model, patches={"post_input": [add]}), longer)


@pytest.mark.parametrize("block", [("double_block", 1), ("single_block", 0)])
def test_a_block_can_be_replaced_or_surrounded(model: Flux, block: tuple[str, int]) -> None:
    def surround(args: dict[str, Any], extra: dict[str, Any]) -> Any:
        return extra["original_block"](args)

    def skip(args: dict[str, Any], extra: dict[str, Any]) -> Any:
        assert {"img", "vec", "pe", "attn_mask", "transformer_options"} <= args.keys()
        return {name: args[name] for name in ("img", "txt") if name in args}

    assert torch.equal(_run(model, patches_replace={"dit": {block: surround}}), _run(model))
    assert not torch.equal(_run(model, patches_replace={"dit": {block: skip}}), _run(model))


def test_a_mask_hides_keys(model: Flux) -> None:
    mask = torch.ones(LENGTH + IMAGE, LENGTH + IMAGE, dtype=torch.bool)
    torch.testing.assert_close(_run(model, mask=mask), _run(model))
    mask[:, 0] = False
    masked, (x, t, text, pooled, guidance) = _run(model, mask=mask), _inputs()
    changed = torch.cat([text[:, :1] + 1, text[:, 1:]], 1)
    again = model.forward_transformer(x, t, changed, pooled, guidance, transformer_options={}, attention_mask=mask)
    torch.testing.assert_close(again, masked)
    assert not torch.allclose(masked, _run(model), atol=1e-4)


def test_a_control_network_adds_after_blocks(model: Flux) -> None:
    nothing = torch.zeros(2, IMAGE, 32)
    assert torch.equal(_run(model, {"input": [nothing, None], "output": [nothing]}), _run(model))
    for place in ("input", "output"):
        assert not torch.equal(_run(model, {"input": [], "output": [], place: [nothing + 1]}), _run(model))


def test_unknown_hooks_are_refused(model: Flux) -> None:
    x, t, text, pooled, guidance = _inputs()
    with pytest.raises(NotImplementedError, match="attn2_patch"):
        options = {"patches": {"attn2_patch": [None], "attn1_patch": []}}
        model.apply_model(x, t, c_crossattn=text, transformer_options=options, y=pooled, guidance=guidance)
