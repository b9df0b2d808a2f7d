"""Any image-text-to-text model of `transformers` from a local folder, asked as its own processor wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

PLAIN = ("blip-2", "instructblip")  # take a bare text beside the picture; every other family has a chat template


@dataclass(frozen=True)
class Other:
    """A model that others built, and its processor. `kind` is its `model_type`."""

    kind: str
    model: Any
    processor: Any

    @property
    def chats(self) -> bool:
        """Whether turns are handed over as such, in the model's own form."""
        return self.kind not in PLAIN

    def prompt(self, turns: Sequence[tuple[str, str]], instruction: str) -> str:
        """The whole text of a conversation, `turns` being what was asked and said before; one turn of a plain model."""
        if not self.chats:
            return instruction
        first = {"type": "image"}
        messages = []
        for asked, said in turns:
            messages.append({"role": "user", "content": [{"type": "text", "text": asked}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": instruction}]})
        messages[0]["content"] = [first, *messages[0]["content"]]
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    @torch.inference_mode()
    def answer(self, picture: Image.Image, prompt: str, **decoding: Any) -> str:
        """One answer to a prompt as `prompt` gives it; `decoding` are arguments of transformers' `generate`."""
        inputs = self.processor(images=picture, text=prompt, return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        ids = self.model.generate(**inputs, do_sample=False, **decoding)  # (1, T)
        given = inputs["input_ids"]
        if torch.equal(ids[:, : given.size(1)], given):  # a causal model that was given ids repeats them
            ids = ids[:, given.size(1) :]
        text: str = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
        return text.strip()


def load_other(folder: Path, device: str) -> Other:
    """Raises ValueError when the folder has no such model, or no way to ask it in words."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"hf:{folder} has no config.json: name a folder that save_pretrained or a download made")
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype="auto")
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ValueError(f"hf:{folder} cannot be loaded as an image-text-to-text model: {error}") from error
    if kind not in PLAIN and getattr(processor, "chat_template", None) is None:
        raise ValueError(f"hf:{folder} ({kind}) has no chat template: put its chat_template.jinja into the folder")
    return Other(kind, model.to(device).eval(), processor)
