"""Draw the textures and train `texture-sd` from nothing: `python -m tessera.demo.training.train --work FOLDER`.

Seeded; uses a GPU where there is one. Interrupted, it goes on from its last checkpoint when called again.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import AutoencoderKL

from . import train_decoder, train_unet, train_vae
from .parts import FACTOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and checkpoints, about 1 GB")
    parser.add_argument("--out", type=Path, help="diffusers folder to write (default: WORK/texture-sd)")
    parser.add_argument("--vae-steps", type=int, default=4150)
    parser.add_argument("--decoder-steps", type=int, default=2200)
    parser.add_argument("--unet-steps", type=int, default=12000)
    parser.add_argument("--pool", type=int, default=9200, help="textures drawn for the VAE, and as many for the UNet")
    args = parser.parse_args()
    train_vae.train(args.work, args.work / "vae", args.vae_steps, args.pool)
    train_decoder.train(args.work / "vae", args.work, args.work / "vae-areas", args.decoder_steps, args.pool)
    vae = AutoencoderKL.from_pretrained(args.work / "vae-areas")
    train_unet.train(vae, args.work, args.out or args.work / "texture-sd", args.unet_steps, args.pool, 20 * FACTOR)


if __name__ == "__main__":
    main()
