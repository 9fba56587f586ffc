"""Run the sipc of this checkout under Wine."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

if __name__ == "__main__":
    from simpleipc_cli.__main__ import main

    main()
