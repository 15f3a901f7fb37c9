"""`python -m rhythm` is the `rhythm` command."""

from rhythm.cli import main

if __name__ == "__main__":
    main()
