"""The harness in `rig/` is a package beside these tests, and of `soak.py`, which is run as a program."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
