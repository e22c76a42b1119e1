"""`python -m kick_core` is `kick`."""

from kick_core.cli import main

raise SystemExit(main())
