"""Prints the cells of a heat map of `facet eval needle`, one a line: tooltip, text, and whether colours and places fit;
fails when the file is no well-formed XML, has no title, or leaves its own frame."""
import sys
import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"
root = ET.parse(sys.argv[1]).getroot()
assert root.tag == SVG + "svg" and root.get("role") == "img"
names = root.get("aria-labelledby").split()
texts = [root.find(f"*[@id='{name}']").text for name in names]
assert len(names) == 2 and all(texts), texts
assert "prefers-color-scheme: dark" in root.find(SVG + "style").text
left, top, width, height = map(float, root.get("viewBox").split())
for e in root.iter():
    x, y = float(e.get("x", 0)), float(e.get("y", 0))
    assert left <= x <= width and top <= y <= height, ET.tostring(e)


def luminance(color):
    values = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)] if len(color) == 7 else [int(c, 16) / 15 for c in color[1:]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


seen = set()
for cell in root.iter(SVG + "g"):
    rect, text = cell.find(SVG + "rect"), cell.find(SVG + "text")
    place = (rect.get("x"), rect.get("y"))
    assert place not in seen, place
    seen.add(place)
    dark, light = sorted((luminance(rect.get("fill")), luminance(text.get("fill"))))
    contrast = (light + 0.05) / (dark + 0.05)
    assert contrast >= 4.5, (contrast, rect.get("fill"))
    print(f"{cell.find(SVG + 'title').text}; {text.text}; {rect.get('fill')}")
print(f"axes: {' '.join(t.text for t in root.findall(SVG + 'text'))}")
