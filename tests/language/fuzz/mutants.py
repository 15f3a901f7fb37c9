"""Bugs planted in the compiler and the run time, one at a time; the random programs must notice every one.

    python -m tests.language.fuzz.mutants [--seeds 400] [name ...]

A mutant is one replacement in the source of one module (mutants.txt), made by an import hook in a process of its own;
the files stay as they are. Node's outcomes of the first programs are made once, and each mutant is caught by the first
program that comes to something else. A text that is no longer in its module, or there more than once, is an error.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SEEDS: Final = 400  #: Programs a mutant may survive, at most.
BATCH: Final = 100  #: Programs in one Node process.
SECONDS_MAX: Final = 600  #: For one mutant; longer counts as caught: it hangs.


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug."""

    name: str
    module: str  #: Within rhythm.language.
    old: str
    new: str


def _read() -> list[Mutant]:
    found = []
    for part in Path(__file__).with_name("mutants.txt").read_text().split("\n\n")[1:]:
        title, *lines = part.strip("\n").split("\n")
        name, _, module = title.removesuffix("]").rpartition(" [")
        old, new = ("\n".join(line[1:] for line in lines if line[0] == sign) for sign in "-+")
        found.append(Mutant(name, module, old, new))
    return found


MUTANTS: Final = _read()


class _Finder:
    """Loads the module of a mutant with its replacement made."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = f"rhythm.language.{mutant.module}"

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self.mutant)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> Any:
        text = mutated(self.mutant, Path(self.path).read_text())
        return compile(text, self.path, "exec", dont_inherit=True)


def mutated(mutant: Mutant, source: str) -> str:
    """The module's source with the bug. Raises ValueError when its place is not there exactly once."""
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {source.count(mutant.old)} places in {mutant.module}")
    return source.replace(mutant.old, mutant.new)


def _hunt(name: str, path: str) -> int:
    """In a process of its own: prints the first seed that notices the mutant; 1 when none does."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    sys.meta_path.insert(0, _Finder(mutant))  # type: ignore[arg-type]  # duck typed
    from tests.language.fuzz.compare import differs, outcome_here, ways_of  # with the bug from here on

    for seed, source, node in json.loads(Path(path).read_text()):
        for way in ways_of(seed):
            if differs(outcome_here(source, way), node):
                print(seed)
                return 0
    return 1


def hunt(mutants: Sequence[Mutant], seeds: int, *, processes: int = 2, told: bool = False) -> dict[str, int | None]:
    """For each mutant how many programs it took to notice it, which is ``told``; None when none of them did."""
    from tests.language.fuzz.compare import run_both
    from tests.language.fuzz.generator import Writer

    programs: list[tuple[int, str, dict[str, Any]]] = []
    for first in range(0, seeds, BATCH):
        sources = [Writer(seed).program() for seed in range(first, min(first + BATCH, seeds))]
        _, in_node = run_both(sources)
        programs += [(first + index, sources[index], outcome) for index, outcome in in_node.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "programs.json"
        path.write_text(json.dumps(programs))

        def one(mutant: Mutant) -> int | None:
            command = [sys.executable, "-m", "tests.language.fuzz.mutants", "--hunt", mutant.name, str(path)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=SECONDS_MAX, env=environment, check=False
                )
            except subprocess.TimeoutExpired:
                return seeds
            if done.returncode not in (0, 1) or done.returncode != (not done.stdout.strip()):
                raise RuntimeError(f"{mutant.name}: {done.stderr[-2000:]}")
            found = int(done.stdout) + 1 if done.returncode == 0 else None
            if told:
                print(f"{'SURVIVES' if found is None else found:>9}  {mutant.name}", flush=True)
            return found

        with ThreadPoolExecutor(processes) as pool:
            return dict(zip([mutant.name for mutant in mutants], pool.map(one, mutants), strict=True))


def main() -> int:
    """Hunts mutants; 1 when one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.language.fuzz.mutants")
    parser.add_argument("names", nargs="*", help="all without any")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--hunt", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hunt:
        return _hunt(*given.names)
    chosen = [mutant for mutant in MUTANTS if not given.names or mutant.name in given.names]
    found = hunt(chosen, given.seeds, told=True)
    survivors = sum(programs is None for programs in found.values())
    print(f"{len(found)} mutants, {survivors} survive {given.seeds} programs")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
