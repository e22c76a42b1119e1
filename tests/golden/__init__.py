"""Results of published reference implementations, shipped with the tests. README.md says what and how it was made."""

from pathlib import Path

GOLDEN = Path(__file__).parent
