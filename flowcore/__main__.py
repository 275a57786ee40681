"""``python -m flowcore``: the command line."""

from flowcore.cli import main

raise SystemExit(main())
