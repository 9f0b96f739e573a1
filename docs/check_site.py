"""Check the built site: every link inside it leads to a page and a place there, and nothing is loaded from elsewhere.

``python docs/check_site.py docs/_build/html`` prints what is wrong, and fails if anything is.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself, by tag; ``a`` only leads away when it is clicked.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The links, places and loaded files of one page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places.update(found[key] for key in ("id", "name") if found.get(key))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(LOADED.get(tag)) and found.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loaded.append(found[LOADED[tag]])


def problems(root):
    """Sentences about what is wrong in the site below ``root``."""
    root = Path(root).resolve()
    found = [path for path in root.rglob("*.html") if "_static" not in path.parts]  # templates of the theme
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in found}
    for path, page in pages.items():
        name = path.relative_to(root)
        for target in page.links + page.loaded:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                if target in page.loaded and url.scheme != "data":
                    yield f"{name}: loads {target}, which is not there without a network"
                continue
            leads = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not leads.exists():
                yield f"{name}: {target} leads to no file"
            elif url.fragment and leads in pages and unquote(url.fragment) not in pages[leads].places:
                yield f"{name}: {target} leads to no such place"


if __name__ == "__main__":
    found = sorted(set(problems(sys.argv[1])))
    print("\n".join(found) or "Every link inside the site leads somewhere, and nothing is loaded from elsewhere.")
    sys.exit(bool(found))
