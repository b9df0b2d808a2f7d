"""Writing a response token by token: greedy, nucleus and beam search after a prompt that was read once.

The beam search gives the ids of `transformers` 5 (`early_stopping=False`), which the tests hold it to; it is
written here because theirs reads the prompt once for every beam and knows one meaning of a beam's length.

Shapes: B rows, K beams, N = B or B*K, T tokens written so far or at most, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from instructblip.models.prefix import Prefix, Step
from instructblip.names import require
from instructblip.protocols import BeamLength, RepetitionScope

NEVER = float("-inf")  # the score of what must not be chosen


class Streamer(Protocol):
    """Is handed each token (B,) once it is chosen, then told that this was the last; as those of `transformers` are."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Search:
    """How a response is searched for; fields as in `recipes.Decoding`.

    Raises:
        ValueError: a number out of its range, or nucleus sampling with several beams.
    """

    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    repetition_penalty: float
    length_penalty: float
    repetition_scope: str = RepetitionScope.generated
    beam_length: str = BeamLength.with_start
    top_p: float | None = None

    def __post_init__(self) -> None:
        require(self.repetition_scope, [scope.value for scope in RepetitionScope], "repetition_scope")
        require(self.beam_length, [length.value for length in BeamLength], "beam_length")
        if self.num_beams < 1:
            raise ValueError(f"num_beams={self.num_beams}: a search follows one beam at least")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens or self.max_new_tokens < 1:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens}, max_new_tokens={self.max_new_tokens}: "
                "the first must lie between 0 and the second, the second be 1 or more"
            )
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty}: must be above 0; 1 is none")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: the nucleus holds a share of the probability, in (0, 1]")
        if self.top_p is not None and self.num_beams > 1:
            raise ValueError(f"top_p={self.top_p} samples one response, num_beams is {self.num_beams}; set it to 1")


def write(
    prefix: Prefix, step: Step, seen: Tensor, search: Search, seeds: Sequence[int] | None, eos: Tensor, pad: int,
    streamer: Streamer | None = None,
) -> Tensor:  # fmt: skip
    """Response ids (B, <= max_new_tokens), EOS included, right-padded with `pad`.

    `seen` (B, W) says which tokens count as said already. `seeds` has one seed a row, for nucleus sampling;
    so what is drawn for a row depends on no other row and on no global state. A `streamer` sees the tokens as they are
    written; a row that has ended goes on with anything.

    Raises:
        ValueError: nucleus sampling without a seed for each row, or a streamer for several beams.
    """
    if search.num_beams > 1 and streamer:
        raise ValueError(
            f"num_beams={search.num_beams}: beams are chosen among at the end, so nothing can be shown before; "
            "a streamer needs num_beams=1"
        )
    if search.num_beams > 1:
        ids = _beam_search(prefix, step, seen, search, eos)
    else:
        ids = _one_by_one(prefix, step, seen, search, _generators(search, seeds, rows=len(seen)), eos, streamer)
    if streamer:
        streamer.end()
    ends = torch.isin(ids, eos)
    after = ends.cumsum(dim=1) > ends.long()  # (B, T) behind the first EOS
    return ids.masked_fill(after, pad)[:, : int((~after).sum(dim=1).max())]


def _one_by_one(
    prefix: Prefix, step: Step, seen: Tensor, search: Search, generators: list[torch.Generator], eos: Tensor,
    streamer: Streamer | None,
) -> Tensor:  # fmt: skip
    """(B, T): always the likeliest token, or one drawn from the nucleus."""
    written: list[Tensor] = []
    ended = seen.new_zeros(len(seen))  # (B,)
    while True:
        scores = _adjusted(prefix.logits.float(), seen, search, len(written), eos)  # (B, W)
        token = scores.argmax(dim=1) if search.top_p is None else _draw(scores, search.top_p, generators)
        written.append(token)
        if streamer:
            streamer.put(token)
        ended = ended | torch.isin(token, eos)
        if ended.all() or len(written) == search.max_new_tokens:
            return torch.stack(written, dim=1)
        seen = seen.scatter(1, token[:, None], True)
        prefix = step(prefix, token[:, None])


def _beam_search(prefix: Prefix, step: Step, seen: Tensor, search: Search, eos: Tensor) -> Tensor:
    """(B, T) the best finished beam of each row; behind its EOS stands anything."""
    rows, beams = len(seen), search.num_beams
    first = torch.arange(rows, device=seen.device)[:, None] * beams  # (B, 1) each row's first beam
    expanded = torch.arange(rows, device=seen.device).repeat_interleave(beams)  # (B*K,)
    prefix, seen = prefix.select(expanded), seen[expanded]
    scores = prefix.logits.new_full((rows, beams), NEVER, dtype=torch.float)  # (B, K) log-likelihood
    scores[:, 0] = 0  # all beams are still alike: one of them counts
    ids = first.new_zeros(rows, beams, 0)  # (B, K, T)
    best, best_scores = first.new_zeros(rows, beams, search.max_new_tokens), torch.full_like(scores, NEVER)
    open_ = torch.ones_like(first, dtype=torch.bool)  # (B, 1) a row whose finished beams may still be surpassed
    keep = max(2, 1 + len(eos)) * beams  # however many of them end, K remain that go on
    for length in range(1, search.max_new_tokens + 1):
        logp = _adjusted(prefix.logits.float().log_softmax(dim=1), seen, search, length - 1, eos)  # (B*K, W)
        total = scores[..., None] + logp.unflatten(0, (rows, beams))  # (B, K, W)
        top, index = total.flatten(1).topk(keep)  # (B, keep)
        beam, token = index // total.size(2), index % total.size(2)
        grown = torch.cat((_of(ids, beam), token[..., None]), dim=2)  # (B, keep, T + 1)
        ends = torch.isin(token, eos)
        finished = ends if length < search.max_new_tokens else torch.ones_like(ends)
        counts = length + (~ends & (search.beam_length == BeamLength.with_start)).long()
        ranked = (top / counts**search.length_penalty).masked_fill(~finished | ~open_, NEVER)
        best, best_scores = _merge(best, best_scores, grown[:, :beams], ranked[:, :beams])
        scores, chosen = top.masked_fill(finished, NEVER).topk(beams)  # (B, K)
        open_ = open_ & (scores[:, :1] / length**search.length_penalty > best_scores.min(dim=1, keepdim=True).values)
        if length == search.max_new_tokens or not open_.any():
            break
        ids, token = _of(grown, chosen), token.gather(1, chosen)
        parents = (first + beam.gather(1, chosen)).flatten()  # (B*K,)
        seen = seen[parents].scatter(1, token.view(-1, 1), True)
        prefix = step(prefix.select(parents), token.view(-1, 1))
    return best[:, 0]


def _merge(best: Tensor, best_scores: Tensor, ids: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The K best of those that had finished, (B, K, max_new_tokens), and those that now have, (B, K, T)."""
    ids = torch.nn.functional.pad(ids, (0, best.size(2) - ids.size(2)))
    best_scores, index = torch.cat((best_scores, scores), dim=1).topk(best.size(1))
    return _of(torch.cat((best, ids), dim=1), index), best_scores


def _adjusted(scores: Tensor, seen: Tensor, search: Search, written: int, eos: Tensor) -> Tensor:
    """Scores (N, W) with what was said pushed down (CTRL, arXiv 1909.05858) and EOS barred while it is too early."""
    pushed = torch.where(scores < 0, scores * search.repetition_penalty, scores / search.repetition_penalty)
    scores = torch.where(seen, pushed, scores)
    return scores.index_fill(1, eos, NEVER) if written < search.min_new_tokens else scores


def _draw(scores: Tensor, top_p: float, generators: list[torch.Generator]) -> Tensor:
    """One token a row (B,) from the smallest set of likeliest tokens that hold `top_p` of the probability."""
    probability, token = scores.softmax(dim=1).sort(dim=1, descending=True, stable=True)
    before = probability.cumsum(dim=1) - probability  # (B, W)
    nucleus = probability.masked_fill(before >= top_p, 0.0).cumsum(dim=1)
    drawn = torch.stack([torch.rand((), generator=g) for g in generators]).to(scores.device)  # (B,)
    place = torch.searchsorted(nucleus, drawn[:, None] * nucleus[:, -1:], right=True)  # (B, 1)
    return token.gather(1, place.clamp(max=token.size(1) - 1))[:, 0]


def _generators(search: Search, seeds: Sequence[int] | None, rows: int) -> list[torch.Generator]:
    if search.top_p is None:
        return []
    if seeds is None or len(seeds) != rows:
        given = "none" if seeds is None else len(seeds)
        raise ValueError(f"top_p={search.top_p} draws; it needs a seed for each of {rows} rows, {given} given")
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _of(ids: Tensor, beam: Tensor) -> Tensor:
    """The sequences (B, M, T) of beams (B, M), from (B, K, T)."""
    return ids.take_along_dim(beam[..., None], dim=1)
