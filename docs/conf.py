"""The docs site: Sphinx, MyST for the pages, autodoc for the reference, furo for its look.

`make docs` builds it into build/site. A warning is an error, so a link that leads nowhere, a page
that no index names and a name in a docstring that does not exist break the build.
"""

from __future__ import annotations

import builtins
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.nodes import make_refnode

import distjob

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "distjob"
author = copyright = "The distjob authors"  # noqa: A001  # Sphinx reads it under this name
release = version = distjob.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
suppress_warnings = ["misc.highlighting_failure"]  # examples in JSON and YAML leave things out
linkcheck_timeout = 20

myst_heading_anchors = 4
myst_enable_extensions = ["deflist", "colon_fence"]

default_role = "py:obj"  # `name` in a docstring is the name of something
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"distjob {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def exists(dotted: str) -> bool:
    """Whether ``dotted`` is a module, or something in one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """What a name in a docstring leads to, where its module does not tell.

    A short name leads to the one documented thing that ends with it. A name of ours or of Python's
    that is on no page is shown, and leads nowhere; it must exist, else it is a warning, and so an
    error.
    """
    if node["refdomain"] != "py":
        return None
    target = node["reftarget"].lstrip("~.")
    found = env.domains.python_domain.find_obj(env, "", "", target, None, 1)
    if len(found) == 1:
        ((name, entry),) = found
        place = app.builder
        return make_refnode(place, node["refdoc"], entry.docname, entry.node_id, content, name)
    module, around = node.get("py:module"), node.get("py:class")
    places = [".".join((module, around)) if module and around else "", module, "distjob", ""]
    known = hasattr(builtins, target) or any(exists(f"{p}.{target}".lstrip(".")) for p in places)
    return content if known or re.fullmatch(r"[\d.]+", target) else None  # bounds of a setting


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", reference)
