"""How well our compression agrees with the peers', as a Markdown table; every single case as JSON.

Runs in the environment that `make oracles` builds:

    .venv-oracles/bin/python -m benchmarks.oracles [--out FILE.json]
"""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from benchmarks import _machine
from tests.oracles.agreement import BOUNDS, MATRICES, Agreement, Case, cases, measure

PEERS = ("llmcompressor", "gptqmodel", "compressed-tensors", "optimum")


def family(case: Case) -> tuple[str, str]:
    """Peer and kind of recipe: what stands in one line of the table. Groups of every size stand together."""
    kind = re.sub(r",group=(-1|32|128)(?=,sym|$)", "", case.recipe)
    return case.peer, re.sub(r"(sym=\w+),static_groups=true", r"\1", kind)


def table(found: dict[Case, Agreement]) -> str:
    """One line a family: how many comparisons, the fewest equal decisions, the range of the output errors."""
    lines = ["| peer | recipe | comparisons | equal decisions, least | output error, ours / theirs |", "|---" * 5 + "|"]
    for (peer, kind), group in groupby(sorted(found, key=family), key=family):
        mine = [found[case] for case in group]
        errors = [agreement.error for agreement in mine]
        same = min(agreement.same for agreement in mine)
        span = f"{min(errors):.4f} … {max(errors):.4f}" if same < 1 else "1.0000"
        lines.append(f"| {peer} | `{kind}` | {len(mine)} | {same:.3%} | {span} |")
    return "\n".join(lines)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--out", type=Path, metavar="FILE.json")
    out = given.parse_args().out
    found = {case: measure(case) for case in cases()}
    print(table(found))
    kept = [asdict(case) | asdict(agreement) for case, agreement in found.items()]
    outside = [case for case, agreement in found.items() if not agreement.within(BOUNDS[case.method])]
    figures = {"peers": {name: version(name) for name in PEERS}, "matrices": MATRICES, "cases": kept}
    _machine.write(out, "oracles", figures)
    if outside:
        raise SystemExit(f"{len(outside)} cases outside the bounds, first {outside[0]}")


if __name__ == "__main__":
    main()
