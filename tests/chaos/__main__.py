"""``python -m tests.chaos [WORD ...]``: runs the faults whose name contains one of the words, or all of them.

``memory`` measures an agent, and ``hostile [COUNT [SEED]]`` sends hostile messages to a collector.
"""

import sys

from tests.chaos.campaign import main

sys.exit(main(sys.argv[1:]))
