"""The retrieval metric's computation, which the `evaluate` metric, training and the ONNX export share."""
