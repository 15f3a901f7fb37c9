"""A long run: python -m tests.language.fuzz --count 20000 --seed 0. See the package's header."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.language.fuzz.compare import Tally, compare
from tests.language.fuzz.coverage import failings, table
from tests.language.fuzz.minimise import minimise

BATCH = 50  #: Programs in one Node process.
SHOWN_MAX = 20  #: Differences that are made smaller and shown.


def main() -> int:
    """Compares many programs; 1 when one differs or the coverage is not what it must be."""
    options = argparse.ArgumentParser(prog="python -m tests.language.fuzz", description=__doc__)
    options.add_argument("--count", type=int, default=20_000, help="programs (default 20000)")
    options.add_argument("--seed", type=int, default=0, help="of the first program (default 0)")
    options.add_argument("--processes", type=int, default=2, help="default 2")
    given = options.parse_args()
    end = given.seed + given.count
    total = Tally()
    with ProcessPoolExecutor(given.processes) as pool:
        starts = range(given.seed, end, BATCH)
        running = [pool.submit(compare, range(start, min(start + BATCH, end))) for start in starts]
        for done in as_completed(running):
            tally = done.result()
            for found in tally.differences[: max(0, SHOWN_MAX - len(total.differences))]:
                small = minimise(found.source, found.way)
                print(f"{found}\n{small.strip()}\n---", flush=True)
            total.add(tally)
            if total.programs % 1000 < BATCH:
                print(f"{total.programs} programs, {len(total.differences)} differ", flush=True)
    print(table(total))
    wrong = failings(total)
    print("\n".join(wrong) if wrong else "no difference")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
