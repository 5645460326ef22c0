"""Which method suits a MODEL: exact ones where it is known, rolling for any other network, a line for what is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tessera.patching.networks import Network
from tessera.patching.schedule import ScheduleRange
from tessera.tiling.axes import TILINGS
from tessera.tiling.circular import NotPeriodicError
from tessera.tiling.methods import METHODS, choose
from tessera.tiling.rolling import Rolling
from torch import nn

BOTH = TILINGS["both"]


class EmbedND(nn.Module):
    """A rotary position embedder, which is known by its name."""


class Unknown(nn.Module):
    """A transformer that does not say how large its tokens are, or not in a way that is known."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.embedder = EmbedND()
        for name, value in attributes.items():
            setattr(self, name, value)


class TrTUnet:
    """An engine: it can be called, and that is all."""


def _model(network: Any) -> Any:
    latent = SimpleNamespace(latent_channels=16, spacial_downscale_ratio=8)
    return SimpleNamespace(get_model_object={"diffusion_model": network, "latent_format": latent}.__getitem__)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_compiled_engine_is_refused_in_one_line(method: str) -> None:
    with pytest.raises(
        ValueError, match=r"TrTUnet.*compiled engine, which cannot be made periodic.*load the plain model"
    ):
        choose(_model(TrTUnet()), method, BOTH, ScheduleRange())


UNKNOWN: list[dict[str, Any]] = [
    {},
    {"patch": nn.Linear(1, 1)},
    {"patch_size": "auto"},
    {"patch_size": ()},
    {"config": SimpleNamespace(hidden_size=8)},
]


@pytest.mark.parametrize("attributes", UNKNOWN, ids=lambda attributes: " ".join(attributes) or "none")
def test_a_transformer_with_tokens_of_unknown_size_is_rolled(attributes: dict[str, Any]) -> None:
    model = _model(Unknown(**attributes))
    hooks, report = choose(model, "auto", BOTH, ScheduleRange())
    assert isinstance(hooks, Rolling)
    assert report.startswith("Unknown: the image is rolled at every step (rolling)")
    assert "multiples of 8 px" in report
    with pytest.raises(NotPeriodicError, match=r"^Unknown does not say .* patch_size.* method rolling\.$"):
        choose(model, "torus_rope", BOTH, ScheduleRange())


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_size": 2}, 2),
        ({"patch_size": (1, 2, 2)}, 2),
        ({"patch_size": None, "patch": 4}, 4),
        ({"patch_size": 1, "config": {"patch_size": 1, "in_channels": 64}}, 2),
    ],
)
def test_the_side_of_a_token_is_read(attributes: dict[str, Any], side: int) -> None:
    assert Network(Unknown(**attributes), 16).token_size == side
