"""Read an image through TensorFlow Serving's gRPC protocol with its own stubs: pip install tensorflow-serving-api.

python client_grpc.py [IMAGE] [--server 127.0.0.1:8500] [--model en]
"""

import argparse
from pathlib import Path

import cv2
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", nargs="?", type=Path, default=Path(__file__).with_name("test_01.jpg"))
parser.add_argument("--server", default="127.0.0.1:8500")
parser.add_argument("--model", default="en")
arguments = parser.parse_args()
stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(arguments.server))


def predict(signature: str, name: str, value: object) -> str:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = arguments.model
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return stub.Predict(request, 30).outputs["strings"].string_val[0].decode()


print("bytes:", predict("bytes", "image_bytes", [arguments.image.read_bytes()]))
pixels = cv2.imread(str(arguments.image), cv2.IMREAD_COLOR)
pixels = cv2.resize(pixels, (max(4, round(pixels.shape[1] * 32 / pixels.shape[0])), 32), interpolation=cv2.INTER_LINEAR)
print("floats:", predict("serving_default", "input_tensor", (pixels.astype(np.float32) / 127.5 - 1)[np.newaxis]))
