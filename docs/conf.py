"""How Sphinx builds the documentation."""

import meter

project = "Meter"
author = "the Meter authors"
copyright = author
release = version = meter.__version__

html_theme = "furo"
html_title = f"Meter {release}"
exclude_patterns = ["_build"]
