"""Questions and what they look at: each picture or clip encoded by itself, and the last ones kept.

Encoded by itself, because the last bits of what an encoder gives depend on what stands beside a picture; so neither the
batch nor what is kept changes an answer.
Shapes: I pictures or clips of a batch, F frames (1 for a picture, 0 for none), S image size, P image tokens, V vision
width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from instructblip.data.media import BadMedia, decode
from instructblip.data.sample import MediaRef
from instructblip.data.shards import MediaPool
from instructblip.data.transforms import evaluation_pixels
from instructblip.evaluation.questions import Identity, Question, identity
from instructblip.models.instructblip import InstructBlip
from instructblip.names import lookup


@dataclass
class Features:
    """Image tokens (F, P, V) of the pictures asked about last, at most `keep` bytes of them in main memory."""

    model: InstructBlip
    image_size: int
    keep: int
    kept: OrderedDict[Identity, Tensor] = field(default_factory=OrderedDict)
    bytes: int = 0

    def of(self, batch: Sequence[Question], pools: Mapping[str, MediaPool]) -> tuple[Tensor, list[int]]:
        """(I, F, P, V) of the batch's distinct pictures, and which one each question looks at.

        Raises ValueError naming a question whose picture cannot be read, and a batch of clips of several lengths.
        """
        shown: dict[Identity, Tensor] = {}
        for question in batch:
            if (key := identity(question)) not in shown:
                shown[key] = self._one(key, question, pools)
        if len(frames := sorted({len(tokens) for tokens in shown.values()})) > 1:
            raise ValueError(f"a batch shows media of {' and '.join(map(str, frames))} frames; their queries differ")
        places = {key: place for place, key in enumerate(shown)}
        device = next(self.model.parameters()).device
        embeds = torch.stack([tokens.to(device) for tokens in shown.values()])  # (I, F, P, V)
        return embeds, [places[identity(question)] for question in batch]

    def _one(self, key: Identity, question: Question, pools: Mapping[str, MediaPool]) -> Tensor:
        """(F, P, V); of no picture nothing, whatever P and V are."""
        if not key:
            return torch.empty(0, 0, 0)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        frames = [read_picture(question.uid, ref, pools, self.image_size) for ref in question.media]
        device = next(self.model.parameters()).device
        tokens = self.model.encode_images(torch.stack(frames).to(device))  # (F, P, V)
        size = tokens.numel() * tokens.element_size()
        if size <= self.keep:
            self.kept[key] = tokens.cpu()
            self.bytes += size
            while self.bytes > self.keep:
                _, oldest = self.kept.popitem(last=False)
                self.bytes -= oldest.numel() * oldest.element_size()
        return tokens


def read_picture(uid: str, ref: MediaRef, pools: Mapping[str, MediaPool], size: int) -> Tensor:
    """uint8 (3, S, S). Raises ValueError naming question and picture: a score is over all of them or none."""
    try:
        return evaluation_pixels(decode(lookup(ref.pool, pools, "media pool").read(ref.key)), size)
    except BadMedia as error:
        raise ValueError(f"{uid} cannot be shown its picture {ref.pool}/{ref.key}: {error}") from error
