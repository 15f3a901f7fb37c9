"""Random flow programs, with Node as the judge.

    grammar.txt     what programs are made of: productions by kind of value, under the rows of the language's table
    generator.py    writes the program of a seed: typed, bounded, logging what it does and in which order
    compare.py      runs it straight, with a snapshot at every suspension and as flat blocks, and compares with Node
    coverage.py     the table of what was written, and what makes a run fail beside a difference
    minimise.py     makes a program that differs smaller
    frontend.py     bytes of every kind through the front end, the IR and the snapshots, guided by coverage
    mutants.py      bugs planted in compiler and run time, each of which the programs must notice

    make fuzz COUNT=20000 SEED=0      python -m tests.language.fuzz
    make fuzz-parser TIME=600         python -m tests.language.fuzz.frontend
    make mutants                      python -m tests.language.fuzz.mutants

The same seed is the same program as long as the grammar stays. A difference is printed as a chunk of the corpus: mend
it, write beside it what Node gives, and put it there.
"""
