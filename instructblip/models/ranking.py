"""The exact log-likelihood of every candidate, with the prompt read once (paper, "vocabulary ranking").

A row's candidates form a tree of tokens: what several begin with is evaluated once, and a last token not at
all, since the token before it predicts it. All nodes go through the model side by side; each sees the prompt,
the tokens above it and itself, and stands at the position that its depth says.

Shapes: C trees, N nodes, M candidates, S positions of the prompt, T tokens, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from instructblip.models.masks import additive
from instructblip.models.prefix import Prefix

TOKENS_PER_FORWARD = 2048  # trees times nodes; bounds the memory, mostly of the logits, and changes no score
PROMPT_PER_FORWARD = 8192  # trees times positions of the prompt; each tree has the prompt's keys and values (ours)
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """Candidates of one row. Each beginning that a token follows has a number; 0 is the prompt's end."""

    row: int = 0
    nodes: dict[Ids, int] = field(default_factory=lambda: {(): 0})  # parents before children
    texts: list[Ids] = field(default_factory=list)


@dataclass(frozen=True)
class Branches:
    """The nodes of C trees as tensors, the prompt's end left out, padded to the largest."""

    input_ids: Tensor  # (C, N)
    depth: Tensor  # (C, N) from 1
    sees: Tensor  # bool (C, N, N): itself and those above it


Evaluate = Callable[[Prefix, Branches], Tensor]  # logits (C, N, W) of what follows each node


def log_likelihoods(
    prefix: Prefix, candidates: list[list[list[int]]], evaluate: Evaluate, *, share: bool
) -> list[Tensor]:
    """Per row the total log-likelihood of its candidates, fp32, in their order.

    Equal candidates of a row get the same number, to the bit. With `share=False` each candidate is a tree of
    its own, for models whose tokens cannot stand side by side.
    """
    place: dict[tuple[int, Ids], int] = {}
    scores: list[Tensor] = []
    distinct = {id(texts): texts for texts in candidates}  # a vocabulary is one list that all rows share
    planted = {key: _plant(texts, share) for key, texts in distinct.items()}
    forest = [replace(tree, row=row) for row, texts in enumerate(candidates) for tree in planted[id(texts)]]
    for trees in _batches(forest, max(1, PROMPT_PER_FORWARD // prefix.attention_mask.size(1))):
        rows = torch.tensor([tree.row for tree in trees], device=prefix.logits.device)
        chosen = prefix.select(rows)
        logits = chosen.logits[:, None]  # (C, 1, W): the prompt predicts every first token
        if max(len(tree.nodes) for tree in trees) > 1:
            logits = torch.cat((logits, evaluate(chosen, _branches(trees, rows.device))), dim=1)  # (C, 1 + N, W)
        for tree in trees:
            place.update({(tree.row, text): len(place) + i for i, text in enumerate(tree.texts)})
        scores.append(_sums(logits.float(), trees))
    total = torch.cat(scores)
    return [total[[place[row, tuple(ids)] for ids in texts]] for row, texts in enumerate(candidates)]


def tree_mask(branches: Branches, attention_mask: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """What each node sees, to be added to the attention scores: (C, 1, N, S + N), 0 or the lowest number.

    A layer with a sliding `window` sees only positions less than that away; in a tree they are not the columns nearby.
    """
    prompt = attention_mask.bool()[:, None].expand(-1, branches.depth.size(1), -1)  # (C, N, S)
    visible = torch.cat((prompt, branches.sees), dim=2)  # (C, N, S + N)
    if window is not None:
        at = node_positions(branches, attention_mask)  # (C, N)
        keys = torch.cat((attention_mask.cumsum(dim=1) - 1, at), dim=1)  # (C, S + N)
        visible = visible & (at[:, :, None] - keys[:, None] < window)
    return additive(visible, dtype)


def node_positions(branches: Branches, attention_mask: Tensor) -> Tensor:
    """(C, N): as if only the tokens above a node stood between it and the prompt."""
    return attention_mask.sum(dim=1, keepdim=True) + branches.depth - 1


def _plant(texts: list[list[int]], share: bool) -> list[Tree]:
    """Trees of at most TOKENS_PER_FORWARD nodes, or of one candidate; neighbours in the alphabet stay together."""
    trees: list[Tree] = []
    for text in sorted(set(map(tuple, texts))):
        beginnings = [text[:length] for length in range(1, len(text))]
        new = [ids for ids in beginnings if not trees or ids not in trees[-1].nodes]
        if not trees or not share or len(trees[-1].nodes) + len(new) > TOKENS_PER_FORWARD:
            trees.append(Tree())
        for ids in beginnings:
            trees[-1].nodes.setdefault(ids, len(trees[-1].nodes))
        trees[-1].texts.append(text)
    return trees


def _batches(trees: list[Tree], most: int) -> Iterator[list[Tree]]:
    """Up to `most` trees of like size, at most TOKENS_PER_FORWARD nodes with padding; or one tree."""
    batch: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: len(tree.nodes)):  # the last is the largest
        if batch and (len(batch) == most or (len(batch) + 1) * len(tree.nodes) > TOKENS_PER_FORWARD):
            yield batch
            batch = []
        batch.append(tree)
    yield batch


def _branches(trees: list[Tree], device: torch.device) -> Branches:
    size = max(len(tree.nodes) for tree in trees) - 1
    input_ids, depth = torch.zeros(2, len(trees), size, dtype=torch.long)  # (C, N) each
    sees = torch.zeros(len(trees), size, size, dtype=torch.bool)  # (C, N, N)
    for number, tree in enumerate(trees):
        beginnings = list(tree.nodes)[1:]
        if beginnings:
            input_ids[number, : len(beginnings)] = torch.tensor([ids[-1] for ids in beginnings])
            depth[number, : len(beginnings)] = torch.tensor([len(ids) for ids in beginnings])
            pairs = [(n, tree.nodes[ids[:length]] - 1) for n, ids in enumerate(beginnings) for length in _upto(ids)]
            sees[number][tuple(torch.tensor(pairs).T)] = True
    return Branches(input_ids.to(device), depth.to(device), sees.to(device))


def _upto(ids: Ids) -> range:
    return range(1, len(ids) + 1)


def _sums(logits: Tensor, trees: list[Tree]) -> Tensor:
    """Log-likelihoods (M,) of all candidates of the trees, from logits (C, 1 + N, W)."""
    texts = [(number, tree, text) for number, tree in enumerate(trees) for text in tree.texts]
    nodes = [torch.tensor([tree.nodes[text[:i]] for i in range(len(text))]) for _, tree, text in texts]
    number = torch.tensor([[number] for number, _, _ in texts], device=logits.device)  # (M, 1)
    node = pad_sequence(nodes, batch_first=True).to(logits.device)  # (M, T) that predicts ...
    token = pad_sequence([torch.tensor(text) for *_, text in texts], True, -1).to(logits.device)  # (M, T) ... this
    log_likelihood = logits[number, node, token.clamp(min=0)] - logits.logsumexp(dim=2)[number, node]  # (M, T)
    return log_likelihood.masked_fill(token < 0, 0.0).sum(dim=1)
