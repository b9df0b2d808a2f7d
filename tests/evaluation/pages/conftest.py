"""A run whose directory is written by hand, with real predictions and scores on prepared rows."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from instructblip.choices import Images
from instructblip.config.evaluation import ReportConfig
from instructblip.data.sample import Answer, Form, MediaRef, Sample
from instructblip.files import write_json
from tests.conftest import composed
from tests.evaluation.conftest import World

EVIL = "<script>document.title = 'stolen'</script><img src=http://example.invalid/x.png>"
COUNTS = {"task": "image captioning", "expected_samples": 9.0, "samples": 12, "instruction_tokens": 70,
          "answer_tokens": 30, "unreadable": 1}  # fmt: skip


def wicked() -> Sample:
    """A question, an answer and a picture's key that are markup."""
    media, slots = (MediaRef("coco", EVIL),), {"question": EVIL}
    return Sample("vqav2/val/99", "vqav2", "val", Form.vqa, media, slots, (Answer(EVIL, 10),), None, None)


@pytest.fixture
def reported(world: World) -> World:
    """Two evaluated recipes and a control, curves, a ledger and a checkpoint, all in a synthetic world."""
    run = world.run
    run.mkdir(parents=True)
    places = [f"paths.raw={world.data}/raw", f"paths.data={world.data}", f"paths.runs={run.parent}"]
    config = composed("train", "experiment=miniature/scratch", "name=one", *places)
    config.experiment = ["miniature/scratch"]
    OmegaConf.save(OmegaConf.structured(config), run / "config.yaml")
    write_json(run / "versions.json", {"code": "0123abc", "torch": "2.13.0"})
    write_json(run / "finished.json", {"steps": 400})
    (run / "metrics.csv").write_text(
        "step,train/loss,train/lr,train/loss/vqav2\n10,4.0,0.001,4.5\n20,nan,0.002,\n30,2.0,0.001,2.5\n40,1.0,0.0"
    )
    (run / "selection.csv").write_text(
        "step,selection,val/vqav2,val/loss/vqav2,seconds\n0,0.1,0.1,5.0,1\n40,0.6,0.6,2.0,1\n"
    )
    test = {"statistic": 30.5, "freedom": 1, "p": 1e-9, "alarm": True}
    write_json(run / "ledger.json", {"steps": 40, "test": test, "datasets": {"vqav2": COUNTS}})
    saved = run / "checkpoints" / "step-00000040"
    seen = {"recipe": "vqav2", "split": "train", "manifest": "f00d", "rows": 9, "drawn": 12}
    write_json(saved / "state.json", {"step": 40, "base": "", "lineage": [seen]})
    write_json(saved / "manifest.json", {"model.safetensors": "c0ffee"})
    for recipe, images in (("vqav2", Images.own), ("vsr", Images.own), ("vsr", Images.shuffled)):
        world.predict(recipe, images=images)
        world.score(recipe, images=images)
    return world


def asked(world: World, **changes: object) -> ReportConfig:
    config: ReportConfig = composed("report", f"paths.runs={world.run.parent}", "html=true", "table=1")
    for name, value in changes.items():
        setattr(config, name, value)
    return config
