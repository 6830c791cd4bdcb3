"""What must work in an environment with nothing but the built wheel; no pytest here."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

BIN = Path(sys.executable).parent


def run(*arguments: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [BIN / "iglens", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.returncode, done.stderr)
    return done.stdout


def main() -> None:
    """Run the commands a newcomer would, and check the numbers they print."""
    assert not [p for p in ("pytest", "beartype", "pandas") if can_import(p)]
    assert "explain" in run("--help")
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"paris.{end}") for end in ("json", "csv", "parquet")]
        output = run(
            "explain",
            "The capital of France is",
            "--target",
            " Paris",
            "--json",
            *(part for file in files for part in ("-o", str(file))),
        )
        assert all(file.stat().st_size for file in files)
    result = json.loads(output)
    total = result["baseline"][0] + sum(result["credits"][0])
    assert abs(total - result["final"][0]) < 1e-12, total
    assert abs(result["final"][0] - 0.7727) < 1e-3, result["final"]
    assert result["fidelity"][0] < 1e-4, result["fidelity"]
    print(f"smoke: ' Paris' {result['final'][0]:.4f}, adds up to {total:.4f}")


def can_import(name: str) -> bool:
    """Whether a package is installed."""
    from importlib.util import find_spec

    return find_spec(name) is not None


if __name__ == "__main__":
    main()
