"""What the programs were made of: how often every row of the language's table, and every production, was written."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.language.fuzz.compare import Tally
from tests.language.fuzz.generator import GRAMMAR, ROWS

RETURNED_MIN: Final = 0.9  #: Share of the programs that must run to their end.
PIECES_MIN: Final = 0.75  #: Share of their parts that must run to their end.
STOPPED_MAX: Final = 0.05  #: Share of the programs that may be stopped here.


def table(tally: Tally) -> str:
    """A line per row, with the productions that were never written."""
    lines = ["  emitted  productions  row of the language"]
    for row in ROWS:
        productions = [p for group in GRAMMAR.values() for p in group if p.row == row]
        written = [p for p in productions if tally.emitted[p]]
        count = sum(tally.emitted[p] for p in productions)
        lines.append(f"{count:9,}  {len(written):5} of {len(productions):3}  {row}")
        lines += [f"{'':25}never: {p.kind}: {p.text}" for p in productions if not tally.emitted[p]]
    pieces = tally.pieces_done + tally.pieces_thrown
    lines.append(
        f"{tally.programs:,} programs, {len(tally.differences)} differences; {tally.returned / tally.programs:.1%} ran"
        f" to their end, {tally.pieces_done / pieces:.1%} of their {pieces:,} parts did;"
        f" {tally.stopped / tally.programs:.1%} were stopped here"
    )
    return "\n".join(lines)


def failings(tally: Tally) -> list[str]:
    """What is wrong with a run."""
    by_row = Counter(production.row for production in tally.emitted)
    pieces = tally.pieces_done + tally.pieces_thrown
    wrong = [f"seed {found.seed} differs ({found.way})" for found in tally.differences]
    wrong += [f"never written: {row}" for row in ROWS if not by_row[row]]
    if tally.returned < tally.programs * RETURNED_MIN:
        wrong.append("too few programs run to their end")
    if tally.pieces_done < pieces * PIECES_MIN:
        wrong.append("too few parts of programs run to their end")
    if tally.stopped > tally.programs * STOPPED_MAX:
        wrong.append("too many programs are stopped here")
    return wrong
