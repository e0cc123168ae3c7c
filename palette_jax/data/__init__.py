"""Input pipelines: from pictures on a disk to batches of bytes (TensorFlow, no JAX)."""

import tensorflow as tf

# TensorFlow only reads pictures here; it must not take memory on the accelerator.
tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")
