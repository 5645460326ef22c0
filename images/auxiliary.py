"""Control images by the networks of `controlnet_aux`, where it is installed and its files are on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..weights.files import read_pickle
from .control_maps import rgb

PACKAGE = "controlnet_aux"


class Detector(NamedTuple):
    """A class of `controlnet_aux`, and the published files that it loads."""

    name: str
    files: tuple[str, ...]


DETECTORS = {
    "hed": Detector("HEDdetector", ("ControlNetHED.pth",)),
    "pidinet": Detector("PidiNetDetector", ("table5_pidinet.pth",)),
    "lineart": Detector("LineartDetector", ("sk_model.pth", "sk_model2.pth")),
    "lineart_anime": Detector("LineartAnimeDetector", ("netG.pth",)),
    "mlsd": Detector("MLSDdetector", ("mlsd_large_512_fp32.pth",)),
    "midas": Detector("MidasDetector", ("dpt_hybrid-midas-501f0c75.pt",)),
    "normal_bae": Detector("NormalBaeDetector", ("scannet.pt",)),
    "openpose": Detector("OpenposeDetector", ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth")),
}


def find_folder(method: str, folders: Sequence[str | Path]) -> Path:
    """Return the first of the folders that has the files of a method.

    Raises:
        ValueError: none has, or the package is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise ValueError(
            f"method: {method} needs the package {PACKAGE}, which is not installed; install it with pip, or choose a "
            "method without a network"
        )
    files = DETECTORS[method].files
    for folder in map(Path, folders):
        if all((folder / name).is_file() for name in files):
            return folder
    raise ValueError(
        f"method: {method} needs {' and '.join(files)} in models/{PACKAGE}, found none; put them there, or choose a "
        "method without a network"
    )


def detected(image: Tensor, method: str, folder: Path, device: torch.device) -> Tensor:
    """Return the control image (B, H, W, 3) of images (B, H, W, C) in 0..1.

    Args:
        method: a key of `DETECTORS`.
        folder: with its files.
        device: where the network runs.

    Raises:
        ValueError: a file is broken, or holds more than tensors.
    """
    detector = _loaded(method, folder)
    try:
        detector.to(device)
        return torch.cat([_one(detector, each) for each in rgb(image)])
    finally:
        # The host does not know of it, so it must not keep the room of models.
        detector.to(torch.device("cpu"))


@lru_cache(maxsize=1)
def _loaded(method: str, folder: Path) -> Any:
    import controlnet_aux  # pyright: ignore[reportMissingImports]

    # The package would unpickle anything with torch before 2.6.
    for name in DETECTORS[method].files:
        read_pickle(folder / name)
    # It prints what it loads, where the command line's output is.
    with redirect_stdout(sys.stderr):
        return getattr(controlnet_aux, DETECTORS[method].name).from_pretrained(str(folder))


def _one(detector: Any, image: Tensor) -> Tensor:
    """Return (1, H, W, 3) of an image (H, W, 3); networks work in a size near its own."""
    height, width = image.shape[:2]
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
    side = min(height, width)
    drawn = detector(pixels, detect_resolution=side, image_resolution=side, output_type="np")
    planes = torch.from_numpy(np.array(drawn, copy=True)).float().reshape(*drawn.shape[:2], -1) / 255
    planes = planes.expand(-1, -1, 3).movedim(-1, 0)[None]
    return F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True).clamp(0, 1).movedim(1, -1)
