"""HTML that is read strictly: every element closed in order, and a text that tries to break out of it."""

from html.parser import HTMLParser

EVIL = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"
VOID = {"meta", "link", "input", "br", "hr", "img"}


class Strict(HTMLParser):
    """Elements must be closed in order; keeps tags, attributes and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
