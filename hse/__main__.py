"""`python -m hse` is `hse`."""

from hse.cli import main

if __name__ == "__main__":
    main()
