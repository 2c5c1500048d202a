"""gRPC: TensorFlow Serving's and KServe's services, health and reflection, over the same service as HTTP."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

import crnn
from crnn.errors import CrnnError
from crnn.serve import kserve, tfserving
from crnn.serve.gate import allowed
from crnn.serve.messages import SERVICES, message, methods, pool
from crnn.serve.monitoring import Log, request_id
from crnn.serve.service import Reason, Refused, Service, reason

_OVERHEAD = 1_000_000  # of a message around what max_body allows
_Method = Callable[[Any], Awaitable[Any]]


class Rpc:
    """A gRPC server; `start` it, `set_ready` when the models are loaded, `stop` it."""

    def __init__(self, service: Service, log: Log, address: str, credentials: grpc.ServerCredentials | None) -> None:
        self._service, self._log = service, log
        size = service.limits.max_body + _OVERHEAD
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", service.limits.max_queue),
            ]
        )
        implemented = _implementations(service)
        for name in SERVICES:
            handlers = {
                method: grpc.unary_unary_rpc_method_handler(
                    self._guard(f"{name}/{method}", request, implemented[method])
                )
                for method, request in methods(name).items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((_health_handler(self._health),))
        self._enable_reflection()
        try:
            if credentials:
                self.port = self._server.add_secure_port(address, credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise CrnnError(f"{address} cannot be listened at: is another server running there?")

    async def start(self) -> None:
        await self.set_ready(False)
        await self._server.start()

    async def set_ready(self, ready: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *SERVICES):
            await self._health.set(name, state)

    async def stop(self, grace: float) -> None:
        """Takes no more calls, and finishes those that it has within `grace` seconds."""
        await self._server.stop(grace)

    def _enable_reflection(self) -> None:
        described = health_pb2.DESCRIPTOR.serialized_pb
        pool.AddSerializedFile(described)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool)

    def _guard(self, method: str, request_class: Any, work: _Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """The key, parsing, errors, metrics and the log around a method. Bytes come and go: what cannot be parsed is
        the client's error, where gRPC's own parsing would call it the server's."""
        metrics = self._service.metrics

        async def guarded(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            identity = request_id(metadata.get("x-request-id"))
            began = time.perf_counter()
            status, details = "OK", ""
            try:
                key = self._service.api_key
                if key and not allowed(key, metadata.get("x-api-key"), metadata.get("authorization")):
                    raise Refused(
                        Reason.UNAUTHENTICATED, "this server wants a key: send it as x-api-key or authorization: Bearer"
                    )
                try:
                    request = request_class.FromString(data)
                except DecodeError:
                    name = request_class.DESCRIPTOR.full_name
                    raise Refused(Reason.INVALID, f"the request is not a {name}") from None
                return bytes((await work(request)).SerializeToString())
            except asyncio.CancelledError:  # the client has hung up, or its deadline is over
                status = Reason.GONE.grpc
                raise
            except CrnnError as error:
                status, details = reason(error).grpc, str(error)
            except Exception as error:  # a fault of ours: the client gets a sentence, the log the place
                trace = "".join(traceback.format_exception(error))
                self._log.event("failure", id=identity, path=method, trace=trace)
                status, details = "INTERNAL", f"the server failed: its log has the reason under request {identity}"
            finally:
                seconds = time.perf_counter() - began
                metrics.requests.labels("grpc", method, status).inc()
                metrics.seconds.labels("grpc").observe(seconds)
                self._log.request(
                    id=identity, protocol="grpc", method=method, status=status, milliseconds=round(seconds * 1000, 2)
                )
            await context.abort(grpc.StatusCode[status], details, (("x-request-id", identity),))
            raise AssertionError("abort does not return")

        return guarded


def _health_handler(servicer: Any) -> grpc.GenericRpcHandler:
    request, response = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        health.SERVICE_NAME,
        {
            "Check": grpc.unary_unary_rpc_method_handler(servicer.Check, request, response),
            "Watch": grpc.unary_stream_rpc_method_handler(servicer.Watch, request, response),
        },
    )


def _implementations(service: Service) -> dict[str, _Method]:
    """Every method by its name: request in, response out, CrnnError when there is none."""

    async def predict(request: Any) -> Any:
        return await tfserving.predict(service, request)

    async def model_metadata_tf(request: Any) -> Any:
        if [*request.metadata_field] != ["signature_def"]:
            raise Refused(Reason.INVALID, "metadata_field has to be signature_def")
        spec = request.model_spec
        served = service.model(spec.name, tfserving.spec_version(spec))
        response = message("tensorflow.serving.GetModelMetadataResponse")()
        response.model_spec.name, response.model_spec.version.value = served.name, served.version
        packed = response.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = tfserving.signature_defs().SerializeToString()
        return response

    async def model_status(request: Any) -> Any:
        spec = request.model_spec
        response = message("tensorflow.serving.GetModelStatusResponse")()
        state = message("tensorflow.serving.ModelVersionStatus").State
        for each in tfserving.status(service, spec.name, tfserving.spec_version(spec)):
            added = response.model_version_status.add(version=int(each["version"]), state=state.Value(each["state"]))
            added.status.error_code = 0
        return response

    async def live(request: Any) -> Any:
        return message("inference.ServerLiveResponse")(live=True)

    async def ready(request: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=service.ready)

    async def model_ready(request: Any) -> Any:
        service.versions(request.name, request.version)
        return message("inference.ModelReadyResponse")(ready=service.ready)

    async def server_metadata(request: Any) -> Any:
        return message("inference.ServerMetadataResponse")(name="crnn", version=crnn.__version__)

    async def model_metadata(request: Any) -> Any:
        served = service.model(request.name, request.version)
        described = kserve.describe(served, service.versions(request.name))
        return message("inference.ModelMetadataResponse")(**described)

    async def infer(request: Any) -> Any:
        served = service.model(request.model_name, request.model_version)
        wanted = [output.name for output in request.outputs]
        outputs = await kserve.infer(service, served, kserve.parse_message(request), wanted)
        return kserve.to_message(served, request, outputs)

    return {
        "Predict": predict,
        "GetModelMetadata": model_metadata_tf,
        "GetModelStatus": model_status,
        "ServerLive": live,
        "ServerReady": ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelInfer": infer,
    }
