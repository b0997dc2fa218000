"""`python -m paligemma_jax`: the same as the console script `paligemma`."""

import sys

from paligemma_jax.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
