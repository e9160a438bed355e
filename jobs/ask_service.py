"""Ask a served version who is where at one moment: `python jobs/ask_service.py URL Calib.toml cam01.jpg cam02.jpg ...`.

The calibration is Pose2Sim's TOML, its cameras in the order of the images. Prints the joints of each person in metres.
"""

import base64
import json
import sys
import tomllib
import urllib.request
from pathlib import Path

import cv2
import numpy as np

url, calibration, *images = sys.argv[1:]
cameras = [camera for name, camera in tomllib.loads(Path(calibration).read_text()).items() if name != "metadata"]
turns = [cv2.Rodrigues(np.array(camera["rotation"]))[0] for camera in cameras]
row = {
    "images": [base64.b64encode(Path(image).read_bytes()).decode() for image in images],
    "intrinsics": [camera["matrix"] for camera in cameras],
    "distortion": [camera["distortions"] for camera in cameras],
    "camera_from_world": [np.c_[turn, c["translation"]].tolist() for turn, c in zip(turns, cameras, strict=True)],
}
body = json.dumps({"dataframe_records": [row]}).encode()
request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as response:
    (answer,) = json.load(response)["predictions"]
print(json.dumps(answer["joints"]))
