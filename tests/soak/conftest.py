"""The soak tests take minutes: they are collected only where the environment asks for them.

``FLOWCORE_SOAK_SECONDS`` says how long the endless ones go on, ``FLOWCORE_SOAK_SEED`` replays one
case of them. The modules beside this one are imported by name, here and in worker processes.
"""

import os
import sys
from pathlib import Path

from flowcore.testing import no_leaks

__all__ = ["no_leaks"]

asked_for = {"FLOWCORE_SOAK_SECONDS", "FLOWCORE_SOAK_SEED"} & set(os.environ)
collect_ignore_glob = [] if asked_for else ["*"]

sys.path.append(str(Path(__file__).parent))
