"""GPUs on the PCI bus of any vendor: they tell a GPU that is not used from no GPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orch_local.deploy.doctor.tools import read

_BUS = Path("/sys/bus/pci/devices")
_DISPLAY = ("0x0300", "0x0302", "0x0380")
"""Classes of PCI devices: VGA, 3D and other display controllers."""
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


def makers(bus: Path = _BUS) -> tuple[str, ...]:
    """Who made the GPUs of this machine, each once: NVIDIA, AMD, Intel; others make none that compute."""
    try:
        devices: Iterable[Path] = sorted(bus.iterdir())
    except OSError:
        return ()
    found = (
        _VENDORS.get(read(device / "vendor").strip(), "")
        for device in devices
        if read(device / "class").startswith(_DISPLAY)
    )
    return tuple(sorted({maker for maker in found if maker}))
