"""What `demo.py` is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from instructblip.config.data import PathsConfig


@dataclass
class DemoConfig:
    run: str | None = None  # name or directory
    checkpoint: str | None = None  # in its place a Hugging Face folder or a LAVIS file
    config: str | None = None  # YAML with model:, for a file that does not say how its model is built
    overrides: list[str] = field(default_factory=list)  # over that YAML: model.llm.weights=DIR
    name: str = ""  # of a checkpoint, on the page; empty: that of its folder or file
    recipe: str = "vqav2"  # whose decoding settings the page knows (ours)
    host: str = "127.0.0.1"  # another address lets other machines ask
    port: int = 7860  # gradio's own; 0: any that is free
    examples: int = 6  # pictures offered with a question, where the run is of the embedded world (ours)
    device: str = "auto"
    paths: PathsConfig = field(default_factory=PathsConfig)
