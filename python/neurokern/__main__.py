"""Run the command line as ``python -m neurokern``."""

import sys

from neurokern.cli import main

if __name__ == "__main__":
    sys.exit(main())
