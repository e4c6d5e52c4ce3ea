"""``python -m tests.install [single] [region] [readme]``: executes docs/install.rst in clean systems, or one of its parts.

``readme`` is for the two commands of the README; with ``METER_INSTALL_CHECK_TESTS=1`` that includes ``make test``, with
``METER_INSTALL_CHECK_TESTS=tests/unit`` its set-up and these tests.

It needs root, and runs in mount and process namespaces of its own: what it mounts and starts ends with it.
"""

import os
import sys

INSIDE = "METER_INSTALL_CHECK_INSIDE"

if os.geteuid():
    sys.exit("python -m tests.install: it makes chroots and network namespaces, and needs root for that")
if os.environ.get(INSIDE) != "1":
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    # The shell is the init of the namespace: it reaps what services leave behind, for whose end libvirtd waits.
    init = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*alone, *init, sys.executable, "-m", "tests.install", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})

from tests.install.campaign import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
