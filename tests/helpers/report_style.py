"""The style sheet of the HTML report, and its colours by name."""

from __future__ import annotations

import re
from pathlib import Path

import simpleipc_cli.bench as package

SHEET = (Path(package.__file__).parent / "style.css").read_text("utf-8")
# The first two blocks define the colours, for light and for dark.
LIGHT, DARK = (
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{([^}]*--[^}]*)\}", SHEET)[:2]
)
