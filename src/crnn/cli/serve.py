"""crnn serve, crnn models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from crnn.cli.options import Engine, Json
from crnn.cli.program import app
from crnn.cli.terminal import print_json
from crnn.errors import ConfigError


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="[NAME=]MODEL", help="Bundled model or folder (repeatable); else all."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0 for a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=-1, max=65535, help="Of gRPC; -1 for none.")] = 8500,
    max_batch: Annotated[int, typer.Option(min=1, help="Crops that the network sees at a time.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="A crop waits so long for others of its width.")] = 2.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images taken on and not yet answered.")] = 1024,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request.")] = 256,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages of one PDF.")] = 50,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Size of one request.")] = 32.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Size of one image.")] = 40.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request to arrive, and to be answered.")] = 30,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients have to send; else CRNN_API_KEY, else none.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    engine: Annotated[Engine, typer.Option(help="What computes.")] = Engine.openvino,
    log_requests: Annotated[bool, typer.Option(help="One line of JSON a request on stderr.")] = True,
) -> None:
    """Serve models to TensorFlow Serving, KServe and plain HTTP clients, with a page to try them at /.

    SIGTERM and Ctrl-C finish what was taken on. Everything is logged as JSON on stderr.
    """
    # For image formats whose headers lie; OpenCV reads this when it is loaded, so it is set before that.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(int(max_megapixels * 1e6)))
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # this process never forks
    from crnn import pretrained

    try:
        from crnn.serve import server, service
        from crnn.serve.monitoring import Log
    except ImportError as error:
        raise ConfigError(f"serving needs more packages ({error.name} is missing): pip install 'crnn[serve]'") from None
    limits = service.Limits(
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        max_queue=max_queue,
        max_images=max_images,
        max_pages=max_pages,
        max_body=int(max_body_mb * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        timeout=timeout,
    )
    address = server.Address(host, port, None if grpc_port < 0 else grpc_port, tls_certificate, tls_key)
    models = service.find_models(model or pretrained.names())
    served = service.Service(models, limits, engine.value, service.find_key(api_key_file))
    server.serve(served, address, Log(log_requests))
    # All is answered and written. Python would wait for every thread, and one may be in a drawing that takes hours.
    os._exit(0)


@app.command()
def models(as_json: Json = False) -> None:
    """List the bundled models: size, characters, and texts right on held-out sets (words by protocol 36, then raw)."""
    from crnn import pretrained

    bundled = pretrained.describe()
    if as_json:
        print_json(bundled)
        return
    for model in bundled:
        scores = "  ".join(f"{name} {_score(score)}" for name, score in model["scores"].items())
        print(f"{model['name']}\t{model['megabytes']:.1f} MB\t{model['characters']} characters\t{scores}")


def _score(score: Any) -> str:
    if not isinstance(score, dict):
        return str(score)
    raw, plain = (f"{score[name]:.1%}" if name in score else "" for name in ("word_accuracy", "word_accuracy_36"))
    return f"{plain} (raw {raw})" if raw and plain else raw or plain
