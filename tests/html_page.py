"""A parsed page, for tests that ask what is on it."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a test asks about a page; fails on tags that are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.ids, self.labels, self.tags = [], [], [], []
        self.open, self.text, self.headers = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.links += re.findall(r"url\(([^)]*)\)", " ".join(v or "" for _, v in attrs))
        if values.get("role") == "img":
            self.labels.append(values["aria-label"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
            if "th" in self.open:
                self.headers.append(data.strip())
