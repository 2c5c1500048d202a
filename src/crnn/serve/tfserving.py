"""TensorFlow Serving's requests and answers, as JSON and as messages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict

from crnn.document import Line
from crnn.serve import signatures
from crnn.serve.messages import message
from crnn.serve.service import Reason, Refused, Served, Service
from crnn.serve.signatures import BYTES, DEFAULT, INPUTS, OUTPUTS, ROWS, Tensor

SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
_DTYPES = message("tensorflow.TensorProto").DESCRIPTOR.fields_by_name["dtype"].enum_type
_TYPES = {"float": "DT_FLOAT", "bytes": "DT_STRING", "int64": "DT_INT64"}
_FIELDS = {  # of a TensorProto: the type's values that are not packed into tensor_content
    "DT_FLOAT": ("float_val", np.float32),
    "DT_DOUBLE": ("double_val", np.float64),
    "DT_HALF": ("half_val", np.float16),
}


async def predict_json(service: Service, served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """A :predict request in row ("instances") or column ("inputs") format."""
    if ("instances" in body) == ("inputs" in body):
        raise Refused(Reason.INVALID, 'a request is a JSON object with either "instances" or "inputs"')
    signature = body.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refused(Reason.INVALID, "signature_name has to be a string")
    rows = "instances" in body
    name, values = _rows(body["instances"]) if rows else _columns(body["inputs"])
    if not name:  # one input without its name
        name = INPUTS[BYTES if _has_bytes(values) else DEFAULT].name
    signature = signatures.choose(signature, [name])
    images = await service.run(lambda: _images(values, signature, served))
    lines = await service.read(served, images)
    outputs = {key: _to_json(value) for key, value in signatures.to_outputs(lines, served.reader.charset).items()}
    if rows:
        return {"predictions": [{key: outputs[key][row] for key in ROWS} for row in range(len(lines))]}
    return {"outputs": outputs}


def _rows(instances: Any) -> tuple[str, list[Any]]:
    """The one input's name, empty when not given, and its value of every instance."""
    if not isinstance(instances, list) or not instances:
        raise Refused(Reason.INVALID, '"instances" has to be a list of one instance or more')
    if not all(_is_named(instance) for instance in instances):
        return "", instances
    names = {name for instance in instances for name in instance}
    if len(names) != 1 or not all(len(instance) == 1 for instance in instances):
        raise Refused(Reason.INVALID, "every instance has to have one input, the same one")
    name = names.pop()
    return name, [instance[name] for instance in instances]


def _columns(inputs: Any) -> tuple[str, Any]:
    if not _is_named(inputs):
        return "", inputs
    if len(inputs) != 1:
        raise Refused(Reason.INVALID, f'"inputs" has {len(inputs)} inputs, a signature takes one')
    return next(iter(inputs.items()))


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _has_bytes(values: Any) -> bool:
    return isinstance(values, dict) or (isinstance(values, list) and any(isinstance(each, dict) for each in values))


def _images(values: Any, signature: str, served: Served) -> Sequence[Any]:
    if signature == BYTES:
        given = values if isinstance(values, list) else [values]
        values = [_unpack(each) for each in given]
    else:
        try:
            values = np.array(values, np.float32)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise Refused(
                Reason.INVALID, f"{INPUTS[DEFAULT].name} has to be lists of numbers, all images of one size"
            ) from None
    return signatures.to_images(values, signature, served.reader.preprocessing.height)


def _unpack(value: Any) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise Refused(Reason.INVALID, 'an encoded image has to be {"b64": "…"}, its bytes in base64') from None


def _to_json(value: Any) -> list[Any]:
    return value.tolist() if isinstance(value, np.ndarray) else [text.decode() for text in value]


def status(service: Service, name: str, version: int | str | None) -> list[dict[str, Any]]:
    """model_version_status of one version, or of all."""
    numbers = service.versions(name, version)
    state = "AVAILABLE" if service.loaded else "LOADING"
    code = {"error_code": "OK", "error_message": ""}
    return [{"version": str(number), "state": state, "status": code} for number in numbers]


def signature_defs() -> Any:
    """A SignatureDefMap of both signatures."""
    defined = SignatureDefMap()
    for name, wanted in INPUTS.items():
        signature = defined.signature_def[name]
        signature.method_name = "tensorflow/serving/predict"
        _describe(signature.inputs[wanted.name], wanted)
        for output in OUTPUTS:
            _describe(signature.outputs[output.name], output)
    return defined


def _describe(info: Any, tensor: Tensor) -> None:
    info.name = f"{tensor.name}:0"
    info.dtype = _number(_TYPES[tensor.kind])
    for size in tensor.shape:
        info.tensor_shape.dim.add(size=size)


def metadata_json(served: Served) -> dict[str, Any]:
    spec = {"name": served.name, "signature_name": "", "version": str(served.version)}
    defined = MessageToDict(
        signature_defs(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"model_spec": spec, "metadata": {"signature_def": defined}}


async def predict(service: Service, request: Any) -> Any:
    """A PredictRequest's PredictResponse."""
    served = service.model(request.model_spec.name, spec_version(request.model_spec))
    signature = signatures.choose(request.model_spec.signature_name, request.inputs)
    name = INPUTS[signature].name

    def images() -> Sequence[Any]:
        values = _from_proto(request.inputs[name], name, signatures.most_values(service.limits))
        return signatures.to_images(values, signature, served.reader.preprocessing.height)

    lines = await service.read(served, await service.run(images))
    return _response(served, signature, lines, request.output_filter)


def spec_version(spec: Any) -> int | str | None:
    """The version that a ModelSpec asks for."""
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        raise Refused(Reason.NOT_FOUND, f"there is no version label {spec.version_label[:60]!r}: give a number")
    return spec.version.value if choice else None


def _response(served: Served, signature: str, lines: Sequence[Line], names: Sequence[str]) -> Any:
    response = message("tensorflow.serving.PredictResponse")()
    response.model_spec.name = served.name
    response.model_spec.version.value = served.version
    response.model_spec.signature_name = signature
    outputs = signatures.select(signatures.to_outputs(lines, served.reader.charset), names)
    kinds = {output.name: output.kind for output in OUTPUTS}
    for name, value in outputs.items():
        proto = response.outputs[name]
        proto.dtype = _number(_TYPES[kinds[name]])
        for size in np.shape(value):
            proto.tensor_shape.dim.add(size=size)
        field = {"bytes": "string_val", "int64": "int64_val", "float": "float_val"}[kinds[name]]
        getattr(proto, field).extend(value if kinds[name] == "bytes" else value.ravel().tolist())
    return response


def _from_proto(proto: Any, name: str, elements: int) -> Any:
    """A TensorProto's value: bytes as a list, floats as an array. Values that are left out repeat the last one."""
    known = _DTYPES.values_by_number.get(proto.dtype)
    kind = known.name if known else "DT_INVALID"
    shape = signatures.check_shape([dim.size for dim in proto.tensor_shape.dim], elements, name)
    count = int(np.prod(shape, dtype=np.int64))
    if kind == "DT_STRING":
        if len(shape) > 1 or len(proto.string_val) != count:
            raise Refused(
                Reason.INVALID,
                f"{name} has {len(proto.string_val)} strings and shape {list(shape)}: give one image or a list of them",
            )
        return list(proto.string_val)
    if kind not in _FIELDS:
        raise Refused(Reason.INVALID, f"{name} has type {kind}: give DT_FLOAT, or encoded images as DT_STRING")
    field, dtype = _FIELDS[kind]
    if proto.tensor_content:
        flat = (
            np.frombuffer(proto.tensor_content, dtype)
            if len(proto.tensor_content) % np.dtype(dtype).itemsize == 0
            else None
        )
    elif kind == "DT_HALF":
        flat = np.array(proto.half_val, np.int32).astype(np.uint16).view(np.float16)
    else:
        flat = np.array(getattr(proto, field), dtype)
    if flat is not None and not proto.tensor_content and 0 < flat.size < count:
        flat = np.concatenate([flat, np.full(count - flat.size, flat[-1], dtype)])
    if flat is None or flat.size != count:
        raise Refused(Reason.INVALID, f"{name} has not as many values as its shape {list(shape)} says")
    return flat.reshape(shape)


def _number(kind: str) -> int:
    return int(_DTYPES.values_by_name[kind].number)
