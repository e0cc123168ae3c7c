"""JPEG restoration: removes the artefacts of compression (paper, section 5.4)."""

from palette_jax.tasks.task import Task, as_it_is

TASK = Task(
    name="jpeg",
    title="Clean a JPEG",
    sentence="Removes the blocks and ringing of a strongly compressed JPEG.",
    degrade=as_it_is,
    degradation=lambda options: f"JPEG of quality {options['jpeg_quality']}",
    eval_key="jpeg_quality",
    means=16,  # Four blocks: the mean of one is coarsely rounded at a low quality.
)
