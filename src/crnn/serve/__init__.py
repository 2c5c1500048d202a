"""A model behind TensorFlow Serving, KServe and plain HTTP clients."""
