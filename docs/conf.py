"""How Sphinx builds these pages: Markdown by MyST, the reference from the docstrings."""

import re

from numpy.typing import ArrayLike
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation

import flowcore

project = "flowcore"
author = "the flowcore authors"
copyright = author
release = flowcore.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"flowcore {release}"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# The docstrings: Google's sections, and single backticks around the name of another object.
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass's attributes once, not once more as members
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True}

# Nothing is fetched, so names of Python and of libraries stay plain. Ours must lead somewhere.
_OURS = "|".join(["flowcore", *flowcore.__all__, *flowcore.errors.__all__])
nitpick_ignore_regex = [(r"py:.*", rf"(?!(?:{_OURS})\b).*")]
nitpick_ignore = [("py:class", "flowcore.actions.Function")]  # a type variable

_ARRAY = re.compile(r"~numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], ~numpy\.dtype\[([\w.~]+)\]\]")
_ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")


def find_by_public_name(app, env, node, contnode):
    """Resolve ``flowcore.sinks.Sink.put``, or in a docstring ``Sink.put``, to what it is here.

    Objects are documented once, under the name that users write; annotations and docstrings know
    them by the module that they live in, or by less.
    """
    python = env.get_domain("py")
    wanted = node.get("reftarget", "").split(".")
    for start in range(len(wanted)):
        tail = "." + ".".join(wanted[start:])
        found = [place for name, place in python.objects.items() if name.endswith(tail)]
        if len({place.node_id for place in found}) == 1:  # it may have several names
            place = found[0]
            here = node.get("refdoc", env.docname)
            return make_refnode(app.builder, here, place.docname, place.node_id, contnode)
    return None


def keep_colons(app, what, name, obj, options, lines):
    """Keep napoleon from taking ``a: b``, the first line about an attribute, for its type."""
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def write_types_as_the_source_does(app, what, name, obj, options, signature, returned):
    """Put NumPy's short names of long types back; make defaults readable that are no Python."""

    def shortened(text):
        text = text.replace(_ARRAY_LIKE, "ArrayLike").replace("<factory>", "...")
        text = text.replace("flowcore.writer.Writer", "flowcore.pipeline.Pipeline")  # its base
        return _ARRAY.sub(r"~numpy.typing.NDArray[\1]", text)

    return tuple(text and shortened(text) for text in (signature, returned))


def setup(app):
    """Register the above."""
    app.connect("missing-reference", find_by_public_name)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-signature", write_types_as_the_source_does)
