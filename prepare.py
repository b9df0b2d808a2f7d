"""Official files to tables and shards: `python prepare.py recipe=vqav2 paths.raw=DIR paths.data=DIR`."""

from pathlib import Path

from instructblip.cli import program
from instructblip.config import PrepareConfig


@program("prepare")
def main(config: PrepareConfig) -> None:
    from instructblip import recipes
    from instructblip.data.export import export
    from instructblip.data.join import join
    from instructblip.data.manifest import summary
    from instructblip.data.prepare import prepare
    from instructblip.data.progress import bar

    if config.miniature is not None:
        from instructblip.miniature import sources

        sources.write(Path(config.paths.raw), seed=config.miniature)
    names, absent = recipes.select(config.recipe, config.partition.groups())
    for name in names:
        recipe = recipes.load(name)
        for split in recipes.needed_splits(recipe, config.splits):
            entry = join(recipe, split, config) if config.join else prepare(recipe, split, config, progress=bar)
            print(f"{recipe.name}/{split}: {summary(entry)}")
            if config.export and config.part is None:
                count = export(Path(config.paths.data), recipe.name, split, Path(config.export), config.shard_size)
                print(f"{recipe.name}/{split}: {count:,} samples exported to {config.export}")
    if absent:
        print(f"no recipe yet for {', '.join(absent)}")


if __name__ == "__main__":
    main()
