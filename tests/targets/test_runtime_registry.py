import subprocess
import sys

import pytest

from targets.errors import UsageError
from targets.extras import installed
from targets.runtimes.registry import RUNTIMES, get_runtime


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_registered_runtime_keeps_the_protocol(name):
    if not any(map(installed, RUNTIMES[name].packages)):
        pytest.skip(f"{name} is not installed")
    runtime = get_runtime(name)
    assert runtime.name == name
    assert runtime.formats and runtime.precisions
    assert all(runtime.versions().values())
    assert get_runtime(name) is runtime


def test_an_unknown_runtime_lists_what_there_is():
    with pytest.raises(UsageError) as caught:
        get_runtime("openvno")
    assert "'openvno'" in str(caught.value)
    assert "Did you mean 'openvino'?" in str(caught.value)
    for name in RUNTIMES:
        assert f"{name} (" in str(caught.value)


def test_the_registry_imports_no_runtime():
    names = ("onnxruntime", "openvino", "onnx")
    code = f"import sys, targets.runtimes.registry; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
