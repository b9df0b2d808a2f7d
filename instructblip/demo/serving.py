"""Where the page is served: on this machine, with nothing sent to anybody."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

LARGEST = "100mb"  # of a picture that is dropped (ours)
CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important }
#picture img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated }
#maps .grid-wrap, #maps .fixed-height { min-height: 0 }
"""
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
STOPPED = 143  # by SIGTERM, as other programs say it


def require_gradio() -> None:
    """Has gradio keep to itself when it is imported. Raises ValueError when it is not installed."""
    if find_spec("gradio") is None:
        raise ValueError("the page needs gradio: pip install 'instructblip[demo]'")
    os.environ.update(SILENT)


def free_port(host: str, port: int) -> int:
    """The port, or one that is free for 0. Raises ValueError when it cannot be listened at."""
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            return int(tried.getsockname()[1])
    except (OSError, OverflowError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"host={host} port={port} cannot be served at ({told}); port=0 takes any free port") from error


@contextmanager
def own_folder() -> Iterator[Path]:
    """For what is dropped and shown; gone when the page is. Before gradio is imported, which keeps the name."""
    with tempfile.TemporaryDirectory(prefix="instructblip-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield Path(folder)


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Until Ctrl-C; a SIGTERM exits with 143. Raises ValueError when somebody else took the port."""
    signal.signal(signal.SIGTERM, _stop)
    page.queue(default_concurrency_limit=1)  # one model, one question at a time
    try:
        page.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, show_error=True,
            max_file_size=LARGEST, enable_monitoring=False, run_history=False, footer_links=[], ssr_mode=False,
            mcp_server=False, pwa=False, css=CSS, theme=_theme(),
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"port={port} was taken while the model was loaded; port=0 takes any free port") from error
    print(f"Open http://{host}:{port} (Ctrl-C ends it)", flush=True)
    page.block_thread()


def _theme() -> Any:
    import gradio as gr

    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Base(primary_hue="orange", neutral_hue="slate", font=fonts[0], font_mono=fonts[1])


def _stop(*_: Any) -> None:
    sys.exit(STOPPED)
