"""`python -m foveate`."""

from __future__ import annotations

import sys

from foveate.cli.main import main

sys.exit(main())
