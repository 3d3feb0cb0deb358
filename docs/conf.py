"""Settings of the documentation: MyST Markdown by hand, reference pages from docstrings."""

import inspect
import re
import sys
from typing import Any

import tickertape

project = "tickertape"
author = "The tickertape maintainers"
project_copyright = "2026, the tickertape maintainers"
version = release = tickertape.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False

# A copied command has no prompt and no output; continued lines stay together.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Arguments", "params_style")]

html_theme = "furo"
html_title = "tickertape"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b50", "color-brand-content": "#0b6b50"},
    "dark_css_variables": {"color-brand-primary": "#5cc8a4", "color-brand-content": "#5cc8a4"},
}
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False


def keep_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading an attribute's docstring as "type: description"."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment


def show_values(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Replace the constants in a signature with their values, and markers for "not given" with an ellipsis."""
    function = inspect.unwrap(obj.__init__ if inspect.isclass(obj) else getattr(obj, "__func__", obj))
    module = sys.modules.get(getattr(function, "__module__", ""))

    def value_of(found: re.Match[str]) -> str:
        value = getattr(module, found[1], found)
        if value is found:
            return found[0]
        return "=..." if type(value) is object else f"={value!r}"

    if signature is not None:
        signature = re.sub(r"=\s*(_?[A-Z][A-Z_]+)\b(?!\.)", value_of, signature)
    return signature, returned


def setup(app: Any) -> None:
    """Connect the handler before napoleon's, whose priority is 500."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-signature", show_values)
