"""KServe's second protocol (the Open Inference Protocol), as JSON with binary tensors and as messages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.serve import signatures
from crnn.serve.messages import message
from crnn.serve.service import Reason, Refused, Served, Service
from crnn.serve.signatures import BYTES, DEFAULT, INPUTS, OUTPUTS

DATATYPES = {"float": "FP32", "bytes": "BYTES", "int64": "INT64"}
_FLOATS: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "FP16": np.dtype("<f2")}


@dataclass(frozen=True)
class Input:
    """One input tensor as a request has it: values, or raw bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any = None
    raw: bytes | None = None


@dataclass(frozen=True)
class Wanted:
    """Outputs that a request asks for, and whether each comes as raw bytes."""

    names: list[str]
    binary: dict[str, bool]
    default: bool


def describe(served: Served, versions: Sequence[int]) -> dict[str, Any]:
    """A model's metadata. A request gives one of the inputs."""
    return {
        "name": served.name,
        "versions": [str(number) for number in versions],
        "platform": "crnn",
        "inputs": [_describe(tensor) for tensor in INPUTS.values()],
        "outputs": [_describe(tensor) for tensor in OUTPUTS],
    }


def _describe(tensor: signatures.Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.kind], "shape": list(tensor.shape)}


async def infer(service: Service, served: Served, inputs: Sequence[Input], names: Sequence[str]) -> dict[str, Any]:
    """The wanted outputs by name."""
    signature = signatures.choose("", [each.name for each in inputs])

    def images() -> Sequence[Any]:
        values = _values(inputs[0], signature, signatures.most_values(service.limits))
        return signatures.to_images(values, signature, served.reader.preprocessing.height)

    lines = await service.read(served, await service.run(images))
    return signatures.select(signatures.to_outputs(lines, served.reader.charset), names)


def _values(given: Input, signature: str, elements: int) -> Any:
    shape = signatures.check_shape(given.shape, elements, given.name)
    count = int(np.prod(shape, dtype=np.int64))
    if signature == BYTES:
        if given.datatype != "BYTES":
            raise Refused(Reason.INVALID, f"{given.name} has datatype {given.datatype[:20]}: give BYTES")
        values = given.values if given.raw is None else split(given.raw, given.name)
        if not isinstance(values, list) or len(values) != count:
            raise Refused(Reason.INVALID, f"{given.name} has not as many images as its shape {list(shape)} says")
        return values
    dtype = _FLOATS.get(given.datatype)
    if dtype is None:
        raise Refused(Reason.INVALID, f"{given.name} has datatype {given.datatype[:20]}: give FP32")
    try:
        flat = np.array(given.values, np.float32).ravel() if given.raw is None else np.frombuffer(given.raw, dtype)
        return flat.reshape(shape)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Refused(Reason.INVALID, f"{given.name} has not as many numbers as its shape {list(shape)} says") from None


def split(raw: bytes, name: str) -> list[bytes]:
    """Strings, each behind its length in four bytes."""
    strings, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise Refused(Reason.INVALID, f"{name} is cut off: every string has its length before it, in four bytes")
        strings.append(raw[at + 4 : end])
        at = end
    return strings


def _join(strings: Sequence[bytes]) -> bytes:
    return b"".join(len(string).to_bytes(4, "little") + string for string in strings)


def _raw(value: Any) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray) else _join(value)


# ---- JSON --------------------------------------------------------------------------------------------------------


def parse_json(body: bytes, header_length: str | None) -> tuple[dict[str, Any], list[Input], Wanted]:
    """A request's JSON, its inputs and the outputs it wants; raw tensors follow the JSON of `header_length` bytes."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal() and int(header_length[:12]) <= length):
            raise Refused(Reason.INVALID, "Inference-Header-Content-Length is not the length of the request's JSON")
        length = int(header_length[:12])
    request = parse_object(body[:length])
    rest = body[length:]
    inputs = []
    for given in _objects(request, "inputs"):
        datatype, shape = given.get("datatype"), given.get("shape")
        if not isinstance(given.get("name"), str) or not isinstance(datatype, str) or not isinstance(shape, list):
            raise Refused(Reason.INVALID, "an input needs its name, datatype and shape")
        if not all(type(size) is int and abs(size) < 2**62 for size in shape):
            raise Refused(Reason.INVALID, "a shape has to be a list of whole numbers")
        size = _parameters(given).get("binary_data_size")
        if size is None:
            values = given.get("data")
            if datatype == "BYTES":
                values = [_decode(each) for each in values] if isinstance(values, list) else None
            inputs.append(Input(given["name"], datatype, tuple(shape), values))
        elif isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= len(rest):
            inputs.append(Input(given["name"], datatype, tuple(shape), raw=rest[:size]))
            rest = rest[size:]
        else:
            raise Refused(Reason.INVALID, f"{given['name'][:60]} is shorter than its binary_data_size says")
    outputs = _objects(request, "outputs")
    if not all(isinstance(output.get("name"), str) for output in outputs):
        raise Refused(Reason.INVALID, "an output needs its name")
    wanted = Wanted(
        [output["name"] for output in outputs],
        {output["name"]: _parameters(output).get("binary_data") is True for output in outputs},
        _parameters(request).get("binary_data_output") is True,
    )
    return request, inputs, wanted


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object from a request's bytes."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(Reason.INVALID, "the request is not JSON") from None
    if not isinstance(values, dict):
        raise Refused(Reason.INVALID, "the request is not a JSON object")
    return values


def _objects(request: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = request.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refused(Reason.INVALID, f'"{key}" has to be a list of objects')
    return values


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    parameters = values.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _decode(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refused(Reason.INVALID, "an encoded image in JSON has to be a string of base64") from None


def to_json(
    served: Served, request: dict[str, Any], outputs: dict[str, Any], wanted: Wanted
) -> tuple[bytes, int | None]:
    """The answer's bytes, and the length of the JSON in them when raw tensors follow it."""
    described, raw = [], b""
    for name, value in outputs.items():
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[next(output.kind for output in OUTPUTS if output.name == name)],
            "shape": list(np.shape(value)),
        }
        if wanted.binary.get(name, wanted.default):
            data = _raw(value)
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw += data
        else:
            tensor["data"] = value.ravel().tolist() if isinstance(value, np.ndarray) else [s.decode() for s in value]
        described.append(tensor)
    answer: dict[str, Any] = {"model_name": served.name, "model_version": str(served.version), "outputs": described}
    if isinstance(identity := request.get("id"), str):
        answer["id"] = identity
    text = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace")
    binary = wanted.default or any(wanted.binary.values())
    return text + raw, len(text) if binary else None


# ---- messages ----------------------------------------------------------------------------------------------------


def parse_message(request: Any) -> list[Input]:
    """The inputs of a ModelInferRequest."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Refused(Reason.INVALID, "raw_input_contents has not one entry for every input")
    inputs = []
    for number, given in enumerate(request.inputs):
        contents = given.contents
        values: Any = list(contents.bytes_contents)
        if given.name == INPUTS[DEFAULT].name:
            values = contents.fp32_contents or contents.fp64_contents
        inputs.append(Input(given.name, given.datatype, tuple(given.shape), values, raw[number] if raw else None))
    return inputs


def to_message(served: Served, request: Any, outputs: dict[str, Any]) -> Any:
    """A ModelInferResponse."""
    response = message("inference.ModelInferResponse")()
    response.model_name, response.model_version, response.id = served.name, str(served.version), request.id
    kinds = {output.name: output.kind for output in OUTPUTS}
    for name, value in outputs.items():
        response.outputs.add(name=name, datatype=DATATYPES[kinds[name]], shape=list(np.shape(value)))
        response.raw_output_contents.append(_raw(value))
    return response
