"""Files of a virtual phone: properties, battery, temperatures, clocks and a ``benchmark_model``, all marked as virtual.

They are plain files and small shell scripts that read them, so that a test, or a person who tries something, changes
the phone's state with an editor: ``sys/class/thermal/thermal_zone0/temp`` warms it up.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import targets

TOOL = "data/local/tmp/benchmark_model"
"""Where the stand-in for ``benchmark_model`` lies, below the phone's root."""

_PROPERTIES = {
    "ro.product.model": "Virtual phone (inas-deploy)",
    "ro.product.manufacturer": "virtual",
    "ro.product.cpu.abi": "virtual",
    "ro.board.platform": "virtual",
    "ro.hardware": "virtual",
    "ro.soc.manufacturer": "virtual",
    "ro.soc.model": "virtual",
    "ro.build.version.release": "0",
    "ro.build.version.sdk": "0",
    "ro.build.id": "VIRTUAL",
}
_ZONES = {"cpu-0-virtual": 36000, "gpu-virtual": 35000, "skin-virtual": 31000}
_CLOCKS = {
    "scaling_cur_freq": "2000000",
    "scaling_max_freq": "2000000",
    "scaling_min_freq": "500000",
    "cpuinfo_max_freq": "2000000",
    "scaling_governor": "virtual",
}
_BATTERY = {"capacity": "85", "temp": "300", "status": "Not charging"}

_GETPROP = r"""#!/bin/sh
# A virtual phone's getprop: prints one property, or all of them.
file=${0%/system/bin/*}/system/build.prop
if [ $# -eq 0 ]; then
  sed 's/^\([^=]*\)=\(.*\)$/[\1]: [\2]/' "$file"
else
  sed -n "s/^$1=//p" "$file"
fi
"""
_DUMPSYS = r"""#!/bin/sh
# A virtual phone's dumpsys: battery, power and thermalservice.
root=${0%/system/bin/*}
battery=$root/sys/class/power_supply/battery
case $1 in
battery)
  powered=false
  [ "$(cat "$battery/status")" = Charging ] && powered=true
  echo "Current Battery Service state:"
  echo "  AC powered: false"
  echo "  USB powered: $powered"
  echo "  Wireless powered: false"
  echo "  present: true"
  echo "  level: $(cat "$battery/capacity")"
  echo "  scale: 100"
  echo "  temperature: $(cat "$battery/temp")"
  echo "  technology: virtual"
  ;;
power)
  echo "POWER MANAGER (dumpsys power)"
  echo "  mWakefulness=$(cat "$root/system/etc/virtual_wakefulness")"
  ;;
thermalservice)
  echo "IsStatusOverride: false"
  echo "Thermal Status: $(cat "$root/system/etc/virtual_thermal_status")"
  ;;
*) echo "Can't find service: $1" ;;
esac
"""


def write_phone_files(root: Path, python: str) -> None:
    """Write them below a folder that becomes the phone's ``/``; files that are there are written anew.

    Args:
        root: The folder.
        python: Python inside the phone that has LiteRT, by the path it has there.
    """
    package = Path(targets.__file__).resolve().parent.parent
    launcher = (
        "#!/bin/sh\n# A stand-in for benchmark_model: its interface, with LiteRT in Python behind it.\n"
        f"PYTHONPATH={shlex.quote(str(package))} exec {shlex.quote(python)} -P "
        '-m targets.virtual.benchmark_model "$@"\n'
    )
    programs = {"system/bin/getprop": _GETPROP, "system/bin/dumpsys": _DUMPSYS, TOOL: launcher}
    texts = {
        "system/build.prop": "".join(f"{name}={value}\n" for name, value in _PROPERTIES.items()),
        "system/etc/virtual_wakefulness": "Asleep\n",
        "system/etc/virtual_thermal_status": "0\n",
        **{f"sys/class/power_supply/battery/{name}": f"{value}\n" for name, value in _BATTERY.items()},
    }
    for number, (zone, millidegrees) in enumerate(_ZONES.items()):
        texts[f"sys/class/thermal/thermal_zone{number}/type"] = f"{zone}\n"
        texts[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{millidegrees}\n"
    for core in range(os.cpu_count() or 1):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        texts.update({f"{folder}/{name}": f"{value}\n" for name, value in _CLOCKS.items()})
    for place, text in {**texts, **programs}.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if place in programs else 0o644)
