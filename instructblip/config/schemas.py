"""The schema of each program, which Hydra composes into: dataclasses that mirror `conf/`.

A number that stands in them as a default is the paper's or LAVIS' (source beside it) unless it says `ours`.
"""

from __future__ import annotations

from instructblip.config.demo import DemoConfig
from instructblip.config.evaluation import EvaluateConfig, ReportConfig
from instructblip.config.preparing import PrepareConfig
from instructblip.config.training import TrainConfig

SCHEMAS = {
    "train": TrainConfig,
    "prepare": PrepareConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "demo": DemoConfig,
}
