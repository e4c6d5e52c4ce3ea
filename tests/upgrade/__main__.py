"""``python -m tests.upgrade [REVISION]``: upgrades from that revision, or from the last one with an earlier schema."""

import sys

from tests.upgrade.campaign import main

sys.exit(main(sys.argv[1:]))
