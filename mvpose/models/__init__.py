"""Networks: pixels or 2D joints in, 2D or 3D joints out; no Ray, no MLflow, no files but weights."""
