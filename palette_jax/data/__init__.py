"""Input pipelines: from pictures on a disk to batches of bytes (TensorFlow, no JAX)."""

import tensorflow as tf

# TensorFlow only reads pictures here and must not take memory of the accelerator.
tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")
