"""``python -m tests.chaos [WORD ...]``: runs the faults whose name contains one of the words, or all of them.

The words ``memory`` and ``http`` are for an agent's memory, and for 20 000 hostile requests to an API; ``hostile [COUNT
[SEED]]`` is for hostile messages to a collector.
"""

import sys

from tests.chaos.campaign import main

sys.exit(main(sys.argv[1:]))
