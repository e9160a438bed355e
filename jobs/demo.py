"""`make demo`: real footage to 3D poses on this machine, and where to look at them."""

import os
import sys

from mvpose.cli import run
from mvpose.footage.demo_footage import make_demo_archive

FOLDER = os.path.abspath(os.environ.get("MVPOSE_DEMO", "demo"))

os.environ.setdefault("MVPOSE_CACHE", os.path.join(FOLDER, "cache"))
os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{FOLDER}/mlflow.db")

archive = make_demo_archive(os.path.join(FOLDER, "archive"), os.environ.get("MVPOSE_FOOTAGE"))
output, without = (os.path.join(FOLDER, name) for name in ("run", "run_without_fusion"))
config = ["--config", os.path.join(os.path.dirname(__file__), "configs", "demo.toml")]
code = run(["models", "fetch"])
# One of the three captures is damaged on purpose: it must end as a reported failure, not as a crash.
for folder, model in ((without, "none"), (output, "auto")):
    code = code or run(["reconstruct", archive, "--output", folder, "--model", model, "--exit-zero", *config])
if code == 0:
    code = run(["view", output, "--beside", without])
sys.exit(code)
