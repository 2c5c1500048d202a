"""Read an image through TensorFlow Serving's REST protocol; needs OpenCV and requests, not crnn.

python client_rest.py [IMAGE] [--server http://127.0.0.1:8501] [--model en]
"""

import argparse
import base64
from pathlib import Path

import cv2
import numpy as np
import requests

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", nargs="?", type=Path, default=Path(__file__).with_name("test_01.jpg"))
parser.add_argument("--server", default="http://127.0.0.1:8501")
parser.add_argument("--model", default="en")
arguments = parser.parse_args()
url = f"{arguments.server}/v1/models/{arguments.model}:predict"

# The image as it is, in row format.
encoded = base64.b64encode(arguments.image.read_bytes()).decode()
response = requests.post(url, json={"instances": [{"b64": encoded}]}, timeout=30)
response.raise_for_status()
print("bytes:", *(row["strings"] for row in response.json()["predictions"]))

# As pixels, 32 high and as wide as they come out, in column format.
pixels = cv2.imread(str(arguments.image), cv2.IMREAD_COLOR)
pixels = cv2.resize(pixels, (max(4, round(pixels.shape[1] * 32 / pixels.shape[0])), 32), interpolation=cv2.INTER_LINEAR)
response = requests.post(url, json={"inputs": [(pixels.astype(np.float32) / 127.5 - 1).tolist()]}, timeout=30)
response.raise_for_status()
print("floats:", *response.json()["outputs"]["strings"])
