"""The retrieval metric as a Space; `modeling_pianobind.metric` computes its figures and is published with it."""
