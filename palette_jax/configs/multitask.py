"""One model for several tasks; each picture gets a random one (Table 7).

    python main.py --config=configs/multitask.py --workdir=runs/multitask
    python main.py --mode=evaluate --workdir=runs/multitask

The paper's model knows colorization, inpainting and JPEG restoration; the small ones
here know uncropping as well. Weights are `mix.*`: `--config.mix.jpeg=2` shows twice as
much of a task, 0 leaves one out. Evaluation goes task by task.

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper, not measured here, FID, Inception Score, accuracy, perceptual distance on
ctest10k: centre inpainting 6.8, 165.7, 68.9%, 65.2; colorization 3.7, 187.4, 69.4%,
57.1; JPEG of quality 5 7.0, 137.8, 64.7%, 92.4. What small models reach is in
docs/results.md.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "multitask"
    if variant != "paper":
        config.mix.uncrop = 1.0
    return config
