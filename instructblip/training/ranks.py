"""Which of a run's processes this one is, before they have found each other."""

from __future__ import annotations

import os


def rank() -> int:
    """This process among those torchrun or srun started; 0 when alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
