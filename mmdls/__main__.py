"""``python -m mmdls`` is the command ``mmdls``."""

from mmdls.cli import main

if __name__ == "__main__":
    main(prog_name="python -m mmdls")
