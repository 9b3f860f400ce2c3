"""``try``: a page on this machine that classifies the picture somebody drops on it."""

from typing import Annotated

import typer

from graftline_pipelines.cli.commands.predict import ModelRef, model_file
from graftline_pipelines.cli.options import DEFAULT_TRACKING, Tracking, waiting


def try_(
    model: ModelRef,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    tracking: Tracking = DEFAULT_TRACKING,
) -> None:
    """Open a local page that classifies a picture dropped on it.

    It shows the probabilities, the places of the picture that the answer comes from, and whether
    the picture is unlike the training images.

    Needs only the exported file. Ctrl-C stops it.
    """
    import webbrowser

    from graftline.errors import ConfigurationError

    with model_file(model, tracking) as path:
        with waiting("Loading the model"):
            from graftline.onnx_model.predict import OnnxClassifier
            from graftline_pipelines.local.try_server import ADDRESS, TryServer

            classifier = OnnxClassifier(path)
        try:
            server = TryServer(classifier, port)
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} of {ADDRESS} cannot be used.",
                why=error.strerror,
                fix="Give another --port, or leave it out.",
            ) from error
        with server:
            print(f"{server.url}  (Ctrl-C stops it)", flush=True)
            if browser:
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("\nEnded.")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("try")(try_)
