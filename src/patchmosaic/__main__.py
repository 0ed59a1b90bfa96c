"""``python -m patchmosaic``: the command line."""

import sys

from patchmosaic.cli import main

sys.exit(main())
