"""A page to play with: choose a picture, write an instruction, see what the model says and where it looks.

python demo.py run=miniature-s42                  then open the address it prints
python demo.py checkpoint=DIR device=cuda         a Hugging Face folder; a LAVIS file with config=run.yaml
python demo.py run=NAME recipe=gqa port=8000      with the decoding settings of another recipe; host=0.0.0.0 for others
"""

from instructblip.cli import program
from instructblip.config.demo import DemoConfig


@program("demo")
def main(config: DemoConfig) -> None:
    from instructblip.evaluation.subject import subject

    asked = subject(config)  # before anything heavy is imported
    from instructblip.demo.serving import free_port, require_gradio

    require_gradio()
    port = free_port(config.host, config.port)
    from instructblip.demo.asking import Decoder, decoded
    from instructblip.demo.examples import examples
    from instructblip.demo.serving import own_folder, serve
    from instructblip.evaluation.parts import Share
    from instructblip.evaluation.predict import device
    from instructblip.inference import Assistant

    decoded(config.recipe)  # refuses before the weights are read
    assistant = Assistant.of(asked.load(config, device(config.device, Share())))
    decoder = Decoder.of(config.recipe, assistant.family)
    with own_folder() as folder:
        from instructblip.demo.page import build  # imports gradio, which then keeps its files there

        offered = examples(asked, config.examples, folder)
        serve(build(assistant, asked.name, decoder, offered), config.host, port)


if __name__ == "__main__":
    main()
