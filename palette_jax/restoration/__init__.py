"""From degraded pictures to restored ones; runs without TensorFlow."""
