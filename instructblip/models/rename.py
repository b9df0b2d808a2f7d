"""The one table of names: each tensor as it is called here, in `transformers` and in LAVIS (PAPER H.2, H.3).

`{i}` is a layer, `{p}` weight or bias, `{rest}` what a language model of `transformers` calls its own tensors, and
`{llm}` is LAVIS' word for the language model: llm, t5 or opt. A fused bias of query, key and value stands here under
the name it would have; LAVIS stores it in two (`lavis.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

_OURS = "qformer.layers.{i}."
_HF = "qformer.encoder.layer.{i}."
_LAVIS = "Qformer.bert.encoder.layer.{i}."
_VISION, _EVA = "vision.encoder.encoder.layers.{i}.", "visual_encoder.blocks.{i}."

TABLE = (  # ours, transformers' InstructBLIP, LAVIS
    ("query_tokens", "query_tokens", "query_tokens"),
    ("ln_vision.{p}", "vision_model.post_layernorm.{p}", "ln_vision.{p}"),
    ("language_projection.{p}", "language_projection.{p}", "{llm}_proj.{p}"),
    ("llm.model.{rest}", "language_model.{rest}", "{llm}_model.{rest}"),
    # --- Q-Former
    (
        "qformer.word_embeddings.weight",
        "qformer.embeddings.word_embeddings.weight",
        "Qformer.bert.embeddings.word_embeddings.weight",
    ),
    (
        "qformer.position_embeddings.weight",
        "qformer.embeddings.position_embeddings.weight",
        "Qformer.bert.embeddings.position_embeddings.weight",
    ),
    ("qformer.norm.{p}", "qformer.embeddings.layernorm.{p}", "Qformer.bert.embeddings.LayerNorm.{p}"),
    *(
        (f"{_OURS}{ours}.{{p}}", f"{_HF}{theirs}.{{p}}", f"{_LAVIS}{lavis}.{{p}}")
        for ours, theirs, lavis in (
            ("self_attention.query", "attention.attention.query", "attention.self.query"),
            ("self_attention.key", "attention.attention.key", "attention.self.key"),
            ("self_attention.value", "attention.attention.value", "attention.self.value"),
            ("self_attention.out", "attention.output.dense", "attention.output.dense"),
            ("self_attention.norm", "attention.output.LayerNorm", "attention.output.LayerNorm"),
            ("cross_attention.query", "crossattention.attention.query", "crossattention.self.query"),
            ("cross_attention.key", "crossattention.attention.key", "crossattention.self.key"),
            ("cross_attention.value", "crossattention.attention.value", "crossattention.self.value"),
            ("cross_attention.out", "crossattention.output.dense", "crossattention.output.dense"),
            ("cross_attention.norm", "crossattention.output.LayerNorm", "crossattention.output.LayerNorm"),
            ("query_ffn.up", "intermediate_query.dense", "intermediate_query.dense"),
            ("query_ffn.down", "output_query.dense", "output_query.dense"),
            ("query_ffn.norm", "output_query.LayerNorm", "output_query.LayerNorm"),
            ("text_ffn.up", "intermediate.dense", "intermediate.dense"),
            ("text_ffn.down", "output.dense", "output.dense"),
            ("text_ffn.norm", "output.LayerNorm", "output.LayerNorm"),
        )
    ),
    # --- heads of BLIP-2's first stage; transformers has those of retrieval alone
    ("vision_projection.{p}", "vision_projection.{p}", "vision_proj.{p}"),
    ("text_projection.{p}", "text_projection.{p}", "text_proj.{p}"),
    ("itm_head.{p}", "itm_head.{p}", "itm_head.{p}"),
    ("temperature", "temperature", "temp"),
    ("lm_head.dense.{p}", "cls.predictions.transform.dense.{p}", "Qformer.cls.predictions.transform.dense.{p}"),
    ("lm_head.norm.{p}", "cls.predictions.transform.LayerNorm.{p}", "Qformer.cls.predictions.transform.LayerNorm.{p}"),
    ("lm_head.bias", "cls.predictions.decoder.bias", "Qformer.cls.predictions.decoder.bias"),
    # --- EVA ViT-g/14
    (
        "vision.encoder.embeddings.class_embedding",
        "vision_model.embeddings.class_embedding",
        "visual_encoder.cls_token",
    ),
    (
        "vision.encoder.embeddings.position_embedding",
        "vision_model.embeddings.position_embedding",
        "visual_encoder.pos_embed",
    ),
    (
        "vision.encoder.embeddings.patch_embedding.{p}",
        "vision_model.embeddings.patch_embedding.{p}",
        "visual_encoder.patch_embed.proj.{p}",
    ),
    *(
        (f"{_VISION}{ours}.{{p}}", f"vision_model.encoder.layers.{{i}}.{ours}.{{p}}", f"{_EVA}{lavis}.{{p}}")
        for ours, lavis in (
            ("layer_norm1", "norm1"),
            ("layer_norm2", "norm2"),
            ("self_attn.qkv", "attn.qkv"),
            ("self_attn.projection", "attn.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        )
    ),
)
BLIP2_DIFFERS = {  # transformers' BLIP-2, where it differs from its InstructBLIP
    "qformer.embeddings.layernorm.{p}": "qformer.layernorm.{p}",
    "qformer.embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight",
    "qformer.embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
}
COLUMNS = {
    "ours": [row[0] for row in TABLE],
    "instructblip": [row[1] for row in TABLE],
    "blip-2": [BLIP2_DIFFERS.get(row[1], row[1]) for row in TABLE],
    "lavis": [row[2] for row in TABLE],
}
# Constants that older programs wrote among the weights; every model computes them itself. Of BLIP-2's first stage also
# the output matrix, which is the word embedding again, the bias it had before [DEC], and a scale that nothing reads.
STRAY = re.compile(
    r"(.+\.)?(position_ids|rotary_emb\.inv_freq)|Qformer\.cls\.predictions\.(bias|decoder\.weight)|logit_scale"
)
# What BLIP-2's first stage learns with and the second does without, by our names.
STAGE1_HEADS = re.compile(r"(vision_projection|text_projection|itm_head|lm_head|masked_patches)\..+|temperature")

_SLOTS = {"i": r"\d+", "p": "weight|bias", "rest": ".+", "llm": "llm|t5|opt"}


def renamed(
    tensors: dict[str, Tensor],
    source: str,
    target: str,
    where: str,
    passed_over: Iterable[re.Pattern[str]] = (STRAY,),
    llm: str = "llm",
) -> dict[str, Tensor]:
    """The same tensors under the names of another column of the table.

    Args:
        source, target: columns, of `COLUMNS`.
        where: what the names were read from, for the error.
        passed_over: names that may be left out.
        llm: LAVIS' word for the language model, when `target` is lavis.

    Raises:
        ValueError: listing every name that stands in no row of the table.
    """
    rows = [(_pattern(name), COLUMNS[target][i]) for i, name in enumerate(COLUMNS[source])]
    found: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        matches = ((pattern.fullmatch(name), theirs) for pattern, theirs in rows)
        hit = next(((match, theirs) for match, theirs in matches if match), None)
        if hit:
            found[hit[1].format(**{"llm": llm, **hit[0].groupdict()})] = tensor
        elif not any(pattern.fullmatch(name) for pattern in passed_over):
            unknown.append(name)
    if unknown:
        raise ValueError(f"{where} holds {len(unknown)} tensors that have no place here: {', '.join(sorted(unknown))}")
    return found


def _pattern(name: str) -> re.Pattern[str]:
    escaped = re.escape(name).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(escaped.format(**{slot: f"(?P<{slot}>{form})" for slot, form in _SLOTS.items()}))
