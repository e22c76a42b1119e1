"""Known vulnerabilities of what constraints.txt pins, by pip-audit. Skips, and says so, where no index answers.

pip-audit is put into an environment of its own, so that what it needs is not mixed with what it looks at. An advisory
without a fixed version is listed here only with its answer: the place where SECURITY.md gives it, and the test.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSWERED = {
    "CVE-2025-69872": "diskcache unpickles what it reads; our Disk knows only JSON (tests/store/test_store.py)",
    "GHSA-w8v5-vhqr-4h9v": "the same",
}
UNREACHABLE = re.compile(
    r"ConnectionError|Max retries|NewConnectionError|Temporary failure|timed out|No matching distribution|ProxyError|"
    r"Name or service not known|ServiceError|HTTPError|403 |404 |50\d ",
    re.IGNORECASE,
)


def main() -> int:
    """0: nothing known, or not reachable. 1: something that is not answered."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        got = _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"])
        if got.returncode:
            return _skipped(got)
        found = _run(
            [str(python), "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--no-deps",
             "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        )  # fmt: skip
    try:
        report = json.loads(found.stdout)
    except ValueError:
        return _skipped(found)
    return _judged(report)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _skipped(done: subprocess.CompletedProcess[str]) -> int:
    """Not reachable is no failure; anything else is."""
    last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
    if UNREACHABLE.search(done.stderr):
        print(f"audit: skipped, the index of packages or of advisories does not answer ({last})")
        return 0
    print(f"audit: pip-audit failed ({last})", file=sys.stderr)
    return 1


def _judged(report: dict[str, list[dict[str, object]]]) -> int:
    if not any(package.get("vulns") for package in report["dependencies"]):
        # diskcache's advisory has no fixed version, so whoever knows advisories knows at least that one
        print("audit: skipped, the index that answers here holds no advisories (not even diskcache's)")
        return 0
    open_ones = 0
    for package in report["dependencies"]:
        for advisory in package.get("vulns", []):  # type: ignore[attr-defined]
            names = {advisory["id"], *advisory.get("aliases", [])}
            answer = next((ANSWERED[name] for name in sorted(names) if name in ANSWERED), None)
            open_ones += answer is None
            said = f"answered: {answer}" if answer else f"fixed in {advisory.get('fix_versions') or 'no version'}"
            print(f"audit: {package['name']} {package['version']}: {advisory['id']}, {said}")
    print(f"audit: {len(report['dependencies'])} packages, {open_ones} advisories without an answer")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main())
