"""Python without what the test run has imported or switched on."""

import os
import subprocess
import sys


def run_python(code):
    """Run code in a fresh interpreter that finds the same packages; it must exit 0."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
