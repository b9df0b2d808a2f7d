"""Tokenizers of the tiny models: a byte-level BPE for the language models, a WordPiece for the Q-Former.

    python -m instructblip.miniature.tokenizers

trains both on the templates, the evaluation prompts and the language of the miniature, and writes the JSON files that
stand beside this file. The same code gives the same bytes.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from instructblip.miniature import books, snapshots
from instructblip.miniature.albums import SNAPSHOTS, few, many, printed_twice
from instructblip.miniature.clips import PROGRAMS as MOVING
from instructblip.miniature.clips import Clip
from instructblip.miniature.coreference import rounds
from instructblip.miniature.dialogues import SPEECH
from instructblip.miniature.knowledge import known_fact, sentences
from instructblip.miniature.lettering import word_on
from instructblip.miniature.programs import LETTERED, PROGRAMS, STRIPED, SYNONYMS, captions
from instructblip.miniature.reasoning import DOINGS, comparing, counting, ruled, statements, two_hop
from instructblip.miniature.scenes import WORDS, Draw, Role, Scene, distinct
from instructblip.miniature.telling import BLURRED, EMPTY, STRIPES_SEEN, tell
from instructblip.recipes import RECIPES

FOLDER = Path(__file__).parent
VOCAB_SIZE = 1000
LLM_SPECIALS = ["<pad>", "<s>", "</s>"]
QFORMER_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
SCENES = 300  # of each kind
FAMILIES = ("caption", "choice", "instruction", "vqa", "vqg")  # whose wordings the committed tokenizers were made of
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


class Said(NamedTuple):
    """What is said about one scene: questions with their answers, and sentences."""

    questions: list[tuple[str, str]]
    sentences: list[str]


def corpus() -> list[str]:
    """Instructions in every wording, captions, statements, questions and answers, about many scenes of every kind."""
    rng = random.Random("tokenizers")
    wordings = [*_templates(), *PROMPTS]
    texts = ["yes no true false", *SYNONYMS.values(), *books.GENRES.values(), *WORDS, *sentences()]
    texts += [snapshots.UNANSWERABLE, snapshots.GIVING_UP, BLURRED, EMPTY, STRIPES_SEEN]
    for draw, say in KINDS:
        for scene in distinct(SCENES, Role.language, rng, draw):
            texts += [tell(scene.objects), *_written(say(scene, rng), rng.choice(wordings), rng)]
    return texts


def _templates() -> list[str]:
    """With the parts that may be left out."""
    files: list[Any] = [OmegaConf.load(RECIPES / "templates" / f"{family}.yaml") for family in FAMILIES]
    return [entry["text"].replace("[[", "").replace("]]", "") for file in files for entry in file]


def _written(said: Said, wording: str, rng: random.Random) -> list[str]:
    question, answer = rng.choice(said.questions)
    instruction = wording.format(
        question=question,
        answer=answer,
        instruction=question,
        options=" ".join(f"({letter}) {a}" for letter, (_, a) in zip("abcd", said.questions, strict=False)),
        statement=said.sentences[-1],
        caption=said.sentences[0],
        context=said.sentences[-1],
        history=" ".join(f"{q} {a}" for q, a in said.questions[:3]),
        ocr=", ".join(a for _, a in said.questions[:3]),
    )
    return [instruction, *said.sentences, *(text for pair in said.questions for text in pair)]


def _plain(scene: Scene, rng: random.Random) -> Said:
    programs = [*PROGRAMS.values(), known_fact]
    asked = [rng.choice(found) for program in programs if (found := program(scene))]
    photographed = snapshots.ask(scene, rng.choice(SNAPSHOTS), Counter(), rng)
    described = [*captions(scene, rng), *captions(scene, rng, grammar=STRIPED)]
    return Said([*asked, *([photographed] if photographed else [])], described)


def _lettered(scene: Scene, rng: random.Random) -> Said:
    return Said([(q.text, q.answer) for q in word_on(scene)], captions(scene, rng, grammar=LETTERED))


def _cover(scene: Scene, rng: random.Random) -> Said:
    return Said([(q.text, q.answer) for q in books.questions(scene, rng)], [books.title(scene)])


def _reasoned(scene: Scene, rng: random.Random) -> Said:
    """Of the held-out programs too: the language model may know them from text."""
    counted, rules = [*counting(scene), *comparing(scene)], ruled(scene)
    asked = [(hop.text, hop.answer) for hop in two_hop(scene)]
    asked += [(q.text, q.answer) for q in rng.sample(counted, min(3, len(counted)))]
    spoken = [turn for speak in SPEECH.values() for turn in speak(scene, rng, Counter())]
    asked += [(rule.text, rule.value) for rule in rules] + [(turn.human, turn.reply) for turn in spoken]
    doings = [f"{value} things {doing}." for rule in rules for value, doing in rule.context(rng)[0]]
    return Said(asked, [*doings, *DOINGS.values(), rng.choice(statements(scene)).text])


def _conversed(scene: Scene, rng: random.Random) -> Said:
    held = rounds(scene, 10, rng)
    return Said([(each.question, each.answer) for each in held], captions(scene, rng, 1))


def _moved(scene: Scene, rng: random.Random) -> Said:
    item = rng.choice(scene.objects)
    ways = [cell for cell in range(9) if (cell // 3 == item.row) != (cell % 3 == item.column)]
    clip = Clip(scene, item, rng.choice(ways))
    asked = [(q.text, q.answer) for program in MOVING.values() for q in program(clip)]
    return Said(asked, captions(clip.after, rng, 1))


KINDS: tuple[tuple[Draw, Callable[[Scene, random.Random], Said]], ...] = (
    (few, _plain),
    (printed_twice, _lettered),
    (books.cover, _cover),
    (few, _reasoned),
    (many, _conversed),
    (few, _moved),
)


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
