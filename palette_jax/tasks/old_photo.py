"""Old photographs: removes fading, blur, grain, compression and scratches."""

from palette_jax.tasks.task import Task, as_it_is

TASK = Task(
    name="old_photo",
    title="Mend an old photo",
    sentence="Mends a scan of an old photo: fading, blur, grain and scratches.",
    degrade=as_it_is,
    degradation=lambda options: "random fading, blur, noise, JPEG and scratches",
)
