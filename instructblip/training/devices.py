"""What a GPU can do at most, for MFU and for plans: dense bf16 FLOP/s and memory, from NVIDIA's data sheets.

The sheets of Ampere and later quote twice as much, which counts products with zeros (`with sparsity`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """`matches` is found in the name that the driver gives; of several the longest counts."""

    matches: str
    peak: float  # FLOP/s
    memory: float  # GB, as sold
    source: str


DEVICES = (
    Device("B200", 2250e12, 180, "DGX B200 data sheet: 36 PFLOP/s of eight, dense"),
    Device("H200", 989.4e12, 141, "H200 data sheet, SXM"),
    Device("GH200", 989.4e12, 96, "GH200 data sheet"),
    Device("H100", 989.4e12, 80, "H100 data sheet, SXM"),
    Device("H100 PCIe", 756.5e12, 80, "H100 data sheet, PCIe"),
    Device("H100 NVL", 835.5e12, 94, "H100 NVL data sheet"),
    Device("A100", 312e12, 40, "A100 data sheet"),
    Device("A100-SXM4-80GB", 312e12, 80, "A100 data sheet"),
    Device("A100 80GB", 312e12, 80, "A100 data sheet, PCIe"),
    Device("L40S", 362.05e12, 48, "L40S data sheet"),
    Device("L4", 121e12, 24, "L4 data sheet"),
    Device("A40", 149.7e12, 48, "A40 data sheet"),
    Device("A10", 125e12, 24, "A10 data sheet"),
    Device("A10G", 70e12, 24, "A10G data sheet"),
    Device("RTX A6000", 154.8e12, 48, "RTX A6000 data sheet"),
    Device("RTX 4090", 165.2e12, 24, "Ada whitepaper, fp32 accumulation"),
    Device("RTX 3090", 71e12, 24, "GA102 whitepaper, fp32 accumulation"),
)


def known(name: str) -> Device | None:
    """The device of a driver's name, `NVIDIA A100-SXM4-40GB`; None for one that is not listed."""
    found = [device for device in DEVICES if device.matches.lower() in name.lower()]
    return max(found, key=lambda device: len(device.matches), default=None)


def peak(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its driver's name; None where that is not known, as of a CPU."""
    device = known(name)
    return device.peak if device else None
