"""Tokenizers of the tiny models: a byte-level BPE for the language model, a WordPiece for the Q-Former.

    python -m instructblip.miniature.tokenizers

trains both on the templates, the evaluation prompts and the language of the miniature, and writes the two
JSON files that stand beside this file. The same code gives the same bytes.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from instructblip.miniature.programs import PROGRAMS, SYNONYMS, captions, statements
from instructblip.miniature.scenes import Role, Scene, distinct
from instructblip.recipes import RECIPES

FOLDER = Path(__file__).parent
VOCAB_SIZE = 800
LLM_SPECIALS = ["<pad>", "<s>", "</s>"]
QFORMER_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
SCENES = 1000
PROMPTS = (  # arXiv 2305.06500, appendix E
    "Question: {question} Short answer:",
    "A short image description:",
    "OCR tokens: {ocr}. Question: {question} Short answer:",
    "Question: {question} Options: {options}. Short answer:",
    "Context: {context} Question: {question} Options: {options}. Answer:",
    'This is an image with: "{caption}" written on it. Is it hateful? Answer:',
    'Based on the image, is this statement true or false? "{statement}" Answer:',
    "Dialog history: {history}\n Question: {question} Short answer:",
)


def corpus() -> list[str]:
    """Instructions in every wording, captions, statements, questions and answers, about many scenes."""
    rng = random.Random("tokenizers")
    wordings = [*_templates("caption"), *_templates("vqa"), *PROMPTS]
    texts = ["yes no true false", *SYNONYMS.values()]
    for scene in distinct(SCENES, Role.language, rng, counts=(2, 3, 4)):
        texts += _about(scene, rng.choice(wordings), rng)
    return texts


def _templates(name: str) -> list[str]:
    entries: Any = OmegaConf.load(RECIPES / "templates" / f"{name}.yaml")
    return [entry["text"] for entry in entries]


def _about(scene: Scene, wording: str, rng: random.Random) -> list[str]:
    questions = [rng.choice(found) for program in PROGRAMS.values() if (found := program(scene))]
    said = captions(scene, rng)
    statement = rng.choice(statements(scene)).text
    options = " ".join(f"({letter}) {q.answer}" for letter, q in zip("abcd", questions, strict=False))
    question = rng.choice(questions).text
    instruction = wording.format(
        question=question,
        options=options,
        statement=statement,
        caption=said[0],
        context=said[1],
        history=" ".join(f"{q.text} {q.answer}" for q in questions),
        ocr=", ".join(q.answer for q in questions),
    )
    return [instruction, statement, *said, *(text for q in questions for text in q)]


def llm(texts: list[str]) -> Tokenizer:
    """Byte-level BPE without BOS and EOS: the collator sets them.

    As in the tokenizer of LLaMA, a blank is put before every text and taken away in decoding: a word has the
    same ids at the start of a response as within a prompt.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=LLM_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def qformer(texts: list[str]) -> Tokenizer:
    """Lower-casing WordPiece as BERT's, `[CLS] text [SEP]`: the words of `texts`, and letters for all others.

    The library's own WordPiece trainer is not used: its ids differ from process to process.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    inner = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    frequent = sorted(words, key=lambda word: (-words[word], word))
    vocabulary = list(dict.fromkeys([*QFORMER_SPECIALS, *CHARACTERS, *inner, *frequent]))[:VOCAB_SIZE]

    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(QFORMER_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def write(folder: Path) -> None:
    """`llm_tokenizer.json` and `qformer_tokenizer.json` in `folder`."""
    texts = corpus()
    llm(texts).save(str(folder / "llm_tokenizer.json"))
    qformer(texts).save(str(folder / "qformer_tokenizer.json"))


if __name__ == "__main__":
    write(FOLDER)
