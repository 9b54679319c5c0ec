"""Tags around material in a prompt: no text can end its own tag."""

from __future__ import annotations

import hashlib
import re
from xml.sax.saxutils import quoteattr


def tagged(tag: str, text: str, **attributes: str) -> str:
    """The text between tags. One that holds such a tag itself gets tags with a suffix made from its own hash, which
    no text can hold; the suffix depends on nothing else, so the same text always gives the same prompt.
    """
    if re.search(rf"<\s*(?:/\s*)?{re.escape(tag)}(?![\w-])", text, re.IGNORECASE):
        tag = f"{tag}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    escapes = {"\n": "&#10;", "\r": "&#13;"}
    shown = "".join(f" {name}={quoteattr(value, escapes)}" for name, value in attributes.items())
    return f"<{tag}{shown}>\n{text}{'' if text.endswith(chr(10)) else chr(10)}</{tag}>\n"
