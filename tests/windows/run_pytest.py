"""Run pytest under Wine, on the package of this checkout."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

if __name__ == "__main__":
    import pytest

    config = [
        "--noconftest",
        "-c",
        str(HERE / "run_pytest.ini"),
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(HERE.parent),
    ]
    sys.exit(pytest.main([*config, *sys.argv[1:]]))
