"""Models that turn an encoded image into tokens of a prompt: Flux.1 Redux."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from ..layouts.state_dicts import StateDict, load_state_dict, made_of, name_keys
from .clip_vision import ClipVisionOutput

KEYS = {"redux_up.weight", "redux_up.bias", "redux_down.weight", "redux_down.bias"}


class StyleModel:
    """Two layers on the last hidden states of SigLIP's image encoder.

    Args:
        weights: of Flux.1 Redux.
    """

    def __init__(self, weights: StateDict) -> None:
        self.weights = {key: weights[key].float() for key in KEYS}

    def get_cond(self, image: ClipVisionOutput) -> Tensor:
        """Return tokens (B, P, D) of an encoded image.

        Raises:
            ValueError: it was encoded by another encoder.
        """
        states, wanted = image.last_hidden_state.float(), self.weights["redux_up.weight"].shape[1]
        if states.shape[-1] != wanted:
            raise ValueError(
                f"the image is encoded to states {states.shape[-1]} wide, expected {wanted}; load SigLIP "
                "(sigclip_vision_patch14_384) with CLIPVisionLoader"
            )
        up = F.silu(F.linear(states, self.weights["redux_up.weight"], self.weights["redux_up.bias"]))
        return F.linear(up, self.weights["redux_down.weight"], self.weights["redux_down.bias"])


def load_style_model(path: str | Path) -> StyleModel:
    """Return the STYLE_MODEL of a file.

    Raises:
        ValueError: it is another kind of model.
    """
    weights = load_state_dict(path)
    with made_of(Path(path)):
        if not weights.keys() >= KEYS:
            raise ValueError(f"no style model that is known: it has {name_keys(weights)}, expected Flux.1 Redux")
        return StyleModel(weights)
