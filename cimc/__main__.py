"""`python -m cimc` is `cimc`."""

import sys

from cimc.cli import main

sys.exit(main())
