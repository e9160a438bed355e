"""Networks that map pixels or 2D joints to 2D or 3D joints; no Ray, no MLflow, no files except weights."""
