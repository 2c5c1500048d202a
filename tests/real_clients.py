"""Asks a server through clients from their own packages; run in a process of its own, it prints JSON.

real_clients.py tensorflow|triton HTTP_PORT GRPC_PORT MODEL IMAGE...   the images as files of 32 pixels height
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def pixels(path: str) -> np.ndarray:
    """As TensorFlow Serving's clients send an image: blue first, from -1 to 1."""
    return cv2.imread(path).astype(np.float32) / 127.5 - 1.0


def tensorflow(http: str, address: str, model: str, paths: list[str]) -> dict[str, object]:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    found = {}
    channel = grpc.insecure_channel(address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(name: str, value: object, signature: str):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = stub.Predict(request, 60)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    bytes_ = predict("image_bytes", [Path(path).read_bytes() for path in paths], "bytes")
    found["bytes"] = [text.decode() for text in bytes_["strings"]]
    floats = predict("input_tensor", np.stack([pixels(paths[0])] * 2), "serving_default")
    found["floats"] = [text.decode() for text in floats["strings"]]
    sparse = tf.SparseTensor(*(floats[f"decodes_{part}"] for part in ("indices", "values", "dense_shape")))
    found["decodes"] = tf.sparse.to_dense(sparse, default_value=-1).numpy().tolist()

    metadata = stub.GetModelMetadata(
        get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec={"name": model}, metadata_field=["signature_def"]
        ), 60
    )  # fmt: skip
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.metadata["signature_def"].Unpack(signatures)
    found["signatures"] = {
        name: {
            key: [info.dtype, [dim.size for dim in info.tensor_shape.dim]]
            for key, info in (*signature.inputs.items(), *signature.outputs.items())
        }
        for name, signature in signatures.signature_def.items()
    }
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model}), 60
    )
    found["status"] = [[each.version, each.state, each.status.error_code] for each in status.model_version_status]
    return found


def triton(http: str, address: str, model: str, paths: list[str]) -> dict[str, object]:
    import tritonclient.grpc
    import tritonclient.http

    found = {}
    for name, module, where in (("http", tritonclient.http, http), ("grpc", tritonclient.grpc, address)):
        client = module.InferenceServerClient(where)
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
        metadata = client.get_model_metadata(model, **({"as_json": True} if name == "grpc" else {}))
        encoded = module.InferInput("image_bytes", [len(paths)], "BYTES")
        encoded.set_data_from_numpy(np.array([Path(path).read_bytes() for path in paths], dtype=object))
        floats = module.InferInput("input_tensor", [1, *pixels(paths[0]).shape], "FP32")
        floats.set_data_from_numpy(pixels(paths[0])[np.newaxis])
        found[name] = {
            "inputs": [each["name"] for each in metadata["inputs"]],
            "bytes": [text.decode() for text in client.infer(model, [encoded]).as_numpy("strings")],
            "floats": [text.decode() for text in client.infer(model, [floats]).as_numpy("strings")],
            "decodes": client.infer(model, [floats]).as_numpy("decodes_values").tolist(),
            "confidences": client.infer(
                model, [encoded], outputs=[module.InferRequestedOutput("confidences")]
            ).as_numpy("confidences").tolist(),
        }  # fmt: skip
        if name == "http":  # everything as JSON
            floats.set_data_from_numpy(pixels(paths[0])[np.newaxis], binary_data=False)
            answer = client.infer(model, [floats], outputs=[module.InferRequestedOutput("strings", binary_data=False)])
            found["json"] = answer.as_numpy("strings").tolist()
    return found


if __name__ == "__main__":
    kind, http_port, grpc_port, name, *files = sys.argv[1:]
    result = {"tensorflow": tensorflow, "triton": triton}[kind](
        f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", name, files
    )
    print(json.dumps(result))
