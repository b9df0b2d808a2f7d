"""Official files to tables and shards.

python prepare.py recipe=vqav2 paths.raw=DIR paths.data=DIR   also [a,b], all, held_in, held_out, quick, my.yaml
python prepare.py recipe=held_out check=true                  what is missing; or audit=true: overlaps; explain=paper
python prepare.py -m recipe=web_capfilt 'part=range(0,64)'    on many machines; then join=true
"""

from pathlib import Path

from instructblip.choices import Source
from instructblip.cli import program
from instructblip.config.preparing import PrepareConfig
from instructblip.data.explain import explain
from instructblip.recipes import Recipe, load, needed_splits, select


@program("prepare")
def main(config: PrepareConfig) -> None:
    if config.explain:
        return explain(config.explain, config)
    if config.miniature is not None:
        from instructblip.miniature import sources

        sources.write(Path(config.paths.raw), seed=config.miniature)
        sources.hand_over(Path(config.paths.raw), Path(config.paths.data))
    names, absent = select(config.recipe or ("all" if config.audit else []), config.partition.groups())
    if not names:
        raise ValueError("recipe= names what to prepare: vqav2, [vqav2,vsr], all, held_in, held_out, quick, my.yaml")
    chosen = [load(name) for name in names]
    from instructblip.data.preparing.check import look

    look(chosen, config)
    if config.audit:
        audit(chosen, config)
    for recipe in [] if config.audit or config.check else chosen:
        prepare(recipe, config)
    if absent:
        print(f"no recipe yet for {', '.join(absent)}")


def prepare(recipe: Recipe, config: PrepareConfig) -> None:
    from instructblip.data.export import export
    from instructblip.data.preparing.join import join
    from instructblip.data.preparing.manifest import summary
    from instructblip.data.preparing.prepare import prepare
    from instructblip.data.preparing.progress import bar
    from instructblip.data.preparing.streamed import prepare_streamed
    from instructblip.data.preparing.vocabularies import prepare_vocabularies

    data, parent = Path(config.paths.data), load(recipe.view_of) if recipe.view_of else recipe
    read = prepare_streamed if config.source is Source.hub else prepare
    splits = needed_splits(recipe, config.splits, held_out=recipe.name in config.partition.held_out)
    for split in splits:
        entry = join(parent, split, config) if config.join else read(parent, split, config, bar)
        print(f"{recipe.name}/{split}: {summary(entry)}")
        if config.export and config.part is None:
            count = export(data, parent.name, split, Path(config.export), config.shard_size)
            print(f"{recipe.name}/{split}: {count:,} samples exported to {config.export}")
    for name, facts in prepare_vocabularies(recipe, Path(config.paths.raw), data).items():
        print(f"{recipe.name}: vocabulary {name}: {facts.get('missing') or '{answers:,} answers'.format_map(facts)}")
    if config.preview:
        from instructblip.data.collate import Collator
        from instructblip.data.preparing.preview import Previewer
        from instructblip.models.tokenizers import is_encoder_decoder, tokenizers

        collator = Collator.of(config.model, tokenizers(config.model), is_encoder_decoder(config.model.llm))
        print(Previewer(recipe, config, collator).write(splits))


def audit(chosen: list[Recipe], config: PrepareConfig) -> None:
    from instructblip.data.leakage.audit import audit
    from instructblip.data.preparing.progress import bar

    training = [recipe for recipe in chosen if recipe.name in config.partition.held_in]
    path = audit(training, chosen, Path(config.paths.data), config.audit_distance, config.workers, bar)
    print(f"{path.read_text(encoding='utf-8')}written to {path}")


if __name__ == "__main__":
    main()
