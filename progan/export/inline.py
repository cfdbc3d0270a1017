"""Hand-written ES modules as one script, for pages that open from a disk, where a browser loads no module.

The convention: a module imports with `import {a, b} from "./name.js";` on one line, at its top, and exports with
`export function` or `export const`. Each becomes a function that is called once and gives what the module exports.
"""

import re
from pathlib import Path

_IMPORT = re.compile(r'^import \{([^}\n]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (function|const) (\w+)", re.MULTILINE)


def inlined(folder: Path, entry: str) -> str:
    """The module `entry` of `folder` and what it needs, each once, in an order in which nothing is missing."""
    parts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in parts:
            text = (folder / f"{name}.js").read_text(encoding="utf-8")
            for _, needed in _IMPORT.findall(text):
                add(needed)
            exports = ", ".join(exported for _, exported in _EXPORT.findall(text))
            # The dollar keeps a module apart from a function of the same name.
            body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const {\1} = $\2;", text))
            parts[name] = f"const ${name} = (() => {{\n{body}return {{{exports}}};\n}})();\n"

    add(entry)
    return '"use strict";\n' + "\n".join(parts.values())
