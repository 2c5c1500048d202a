"""The message classes of protos/, in a descriptor pool of their own.

Their full names are those of TensorFlow Serving and KServe, so that real clients and reflection understand them. In the
pool that generated modules share, they would collide with the stubs of tensorflow-serving-api or tritonclient in the
same process; and generated modules hold for few versions of protobuf, a descriptor set (`make protos`) for all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = Path(__file__).with_name("protos") / "services.binpb"
SERVICES = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "inference.GRPCInferenceService",
)

pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
    pool.Add(_file)


def message(name: str) -> Any:
    """The class of a message by its full name."""
    return GetMessageClass(pool.FindMessageTypeByName(name))


def methods(service: str) -> dict[str, Any]:
    """Of a service by its full name, every method's class of request."""
    return {each.name: GetMessageClass(each.input_type) for each in pool.FindServiceByName(service).methods}
