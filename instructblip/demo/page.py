"""The page: what is asked on the left, what is seen on the right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from instructblip.demo.asking import Decoder, Shown, ask
from instructblip.demo.examples import Offered
from instructblip.inference import Assistant

SLIDERS = {  # of the settings of `generate`: label, lowest, highest, step (ours)
    "num_beams": ("beams", 1, 10, 1),
    "max_new_tokens": ("most tokens", 1, 256, 1),
    "min_new_tokens": ("fewest tokens", 0, 64, 1),
    "repetition_penalty": ("repetition penalty", 1.0, 2.0, 0.1),
    "length_penalty": ("length penalty, of beams", -2.0, 2.0, 0.1),
}


LOOKING = "Where the queries look, on average"


def build(assistant: Assistant, name: str, decoder: Decoder, offered: Sequence[Offered]) -> gr.Blocks:
    """The page of one model, called `name`."""
    with gr.Blocks(title=f"InstructBLIP: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"# {name}\nChoose a picture and write an instruction.")
        with gr.Row():
            with gr.Column():
                picture: Any = gr.Image(
                    label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=300,
                    buttons=[], elem_id="picture",
                )  # fmt: skip
                picture.preprocess = _file
                instruction = gr.Textbox(label="Instruction", lines=2, elem_id="instruction")
                options = gr.Textbox(label="Options to rank, one a line", lines=3, elem_id="options")
                with gr.Row():
                    start = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop")
                sliders = _decoding(decoder)
                if offered:
                    rows = [[each.image, each.instruction, each.options] for each in offered]
                    gr.Examples(rows, [picture, instruction, options], label="Pictures of the embedded world")
            with gr.Column():
                told = gr.Markdown(elem_id="told")
                answer = gr.Textbox(label="Answer", lines=2, interactive=False, elem_id="answer")
                likelihood = gr.Textbox(label="Its log-likelihood", interactive=False, elem_id="likelihood")
                ranking = gr.Dataframe(
                    headers=["option", "log-likelihood", "share of these"], datatype=["str", "str", "str"],
                    label="Options, the likeliest first", interactive=False, wrap=True, elem_id="ranking",
                )  # fmt: skip
                maps = gr.Gallery(
                    label=LOOKING, columns=3, object_fit="contain", format="png",
                    interactive=False, buttons=[], elem_id="maps",
                )  # fmt: skip
        fixed = {key: value for key, value in decoder.settings.items() if key not in SLIDERS}

        def respond(image: str | None, said: str, lines: str, *values: float) -> Iterator[tuple[Any, ...]]:
            settings = fixed | dict(zip(SLIDERS, values, strict=True))
            for shown in ask(assistant, image, said, lines, settings):
                yield cells(shown)

        given, seen = [picture, instruction, options, *sliders], [told, answer, likelihood, ranking, maps]
        asking = gr.on([start.click, instruction.submit], respond, given, seen, show_progress="minimal", api_name="ask")
        stop.click(None, cancels=[asking])
    return page


def cells(shown: Shown) -> tuple[Any, ...]:
    """The values of message, answer, log-likelihood, ranking and maps."""
    told = "\n\n".join(f"**{_literal(each)}**" for each in shown.told)
    likelihood = "" if shown.log_likelihood is None else f"{shown.log_likelihood:.4f}"
    total = sum(math.exp(score - shown.ranking[0][1]) for _, score in shown.ranking)
    rows = [
        [text, f"{score:.4f}", f"{math.exp(score - shown.ranking[0][1]) / total:.1%}"] for text, score in shown.ranking
    ]
    apart = "" if shown.cls_share is None else f"; {shown.cls_share:.0%} at the token that is no patch"
    return told, shown.answer, likelihood, rows, gr.Gallery(list(shown.maps), label=LOOKING + apart)


def _file(payload: Any) -> str | None:
    """What was dropped, whatever it holds: gradio would open it before we do, and its error says nothing."""
    return payload.path if payload else None


def _literal(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|~$&" else letter for letter in text)


def _decoding(decoder: Decoder) -> list[gr.Slider]:
    """One slider a setting. The page begins with one beam, whose words can be seen as they come."""
    with gr.Accordion("Decoding: one beam is shown word by word, several when they are done", elem_id="decoding"):
        rows: list[gr.Row] = [gr.Row(), gr.Row(), gr.Row()]
        sliders: list[gr.Slider] = []
        for name, (label, lowest, highest, step) in SLIDERS.items():
            own = decoder.settings[name]
            value = 1 if name == "num_beams" else own
            info = f"{decoder.recipe}: {own:g}"
            with rows[len(sliders) // 2]:
                slider = gr.Slider(lowest, highest, value, step=step, label=label, info=info, elem_id=name, buttons=[])
            sliders.append(slider)
        back = gr.Button(f"As {decoder.recipe} is evaluated", size="sm", elem_id="recipe")
        back.click(lambda: [decoder.settings[name] for name in SLIDERS], None, sliders, api_visibility="private")
    return sliders
