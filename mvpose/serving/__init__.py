"""A registered version behind MLflow's `predict`."""
