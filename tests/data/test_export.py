"""Exported shards carry picture and JSON together, and plain webdataset reads them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from instructblip.data.export import export
from instructblip.data.shards import MediaPool
from instructblip.data.tables import Table, table_path
from tests.conftest import World


def test_every_sample_is_exported_once_with_its_picture(world: World, tmp_path: Path) -> None:
    table, pool = Table(table_path(world.data, "vqav2", "val")), MediaPool(world.data / "media/coco")
    assert export(world.data, "vqav2", "val", tmp_path, shard_size=10) == len(table)
    tars = sorted(tmp_path.glob("vqav2-val-*.tar"))
    assert len(tars) == -(-len(table) // 10) and tars[0].name == "vqav2-val-000000.tar"
    files: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                key, kind = member.name.split(".", 1)
                files.setdefault(key, {})[kind] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert len(files) == len(table)
    for row in range(len(table)):
        sample = table.sample(row)
        found = files[sample.uid.replace("/", "-")]
        facts = json.loads(found["json"])
        assert found["jpg"] == pool.read(sample.media[0].key)
        assert facts["uid"] == sample.uid and json.loads(facts["slots"]) == dict(sample.slots)


def test_exporting_twice_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(world.data, "vsr", "test", tmp_path / name, shard_size=100)
    one, two = ((tmp_path / name / "vsr-test-000000.tar").read_bytes() for name in ("one", "two"))
    assert one == two
