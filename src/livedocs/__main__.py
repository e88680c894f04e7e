"""`python -m livedocs` is the `livedocs` command."""

from livedocs.cli.main import main

if __name__ == "__main__":
    main(prog_name="livedocs")
