"""`kick …`: the command line. Arguments in, the core's generators run, results printed.

Progress goes to standard error, results to standard output (one JSON document with `--json`). Exit status:
0 done, 1 failed, 2 the request cannot be met, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kick_core.errors import BadRequest, KickError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `kick`; None takes the process's own.

    Returns:
        The exit status: 0, 1 failed, 2 bad arguments, 130 stopped.
    """
    from kick_core.cli.arguments import parser

    args = parser().parse_args(arguments)
    args.json = args.json or getattr(args, "format", "") == "json"
    if args.opens:  # what follows imports for seconds before it can say anything
        print(f"opening {args.model or 'the model'} …", file=sys.stderr, flush=True)
    try:
        status: int = args.command(args)
        return status
    except BadRequest as error:
        print(f"kick: {error}", file=sys.stderr)
        return 2
    except KickError as error:
        print(f"kick: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "MemoryError"
        print(
            f"kick: out of memory ({reason}); everything finished is kept: free some, then run it again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nkick: stopped; everything finished is kept, the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _out_of_memory(error: Exception) -> bool:
    """Whether this is what torch or Python raises when memory runs out; torch may not be imported here."""
    return (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
    )
