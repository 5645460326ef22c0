"""ComfyUI's core node for Lotus."""

from __future__ import annotations

from pathlib import Path

import torch

from ..layouts.state_dicts import load_state_dict
from ..sampling.conds import Conditioning
from ..schema import io
from ..schema.declare import Nodes

NODES = Nodes("model/conditioning/lotus")
PROMPT = Path(__file__).with_name("lotus_prompt.safetensors")
"""What OpenCLIP-H makes of an empty prompt, the only one that Lotus was trained with (2 tokens of 1024 numbers)."""


@NODES("LotusConditioning", "LotusConditioning", [], [("conditioning", io.Conditioning)])
def lotus_prompt() -> Conditioning:
    """Return the empty prompt of Lotus, so that no text encoder is needed."""
    return [[load_state_dict(PROMPT)["empty_prompt"].to(torch.float32), {}]]
