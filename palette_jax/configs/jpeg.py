"""JPEG restoration: the source was compressed at quality 5 to 30 (paper, section 5.4).

    python main.py --config=configs/jpeg.py --workdir=runs/jpeg
    python main.py --mode=evaluate --workdir=runs/jpeg
    python main.py --mode=evaluate --workdir=runs/jpeg --config.eval.jpeg_quality=20

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper, not measured here, on ctest10k, FID, Inception Score, accuracy, perceptual
distance (Table 4): quality 5: 8.3, 133.6, 64.2%, 95.5 (regression: 29.0, 73.9, 52.8%,
155.4); quality 10: 5.4, 180.5, 70.7%, 58.3; quality 20: 4.3, 208.7, 73.5%, 37.1. The
originals have 2.7, 250.1, 76.0% and 0. What small models reach is in docs/results.md.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "jpeg"
    return config
