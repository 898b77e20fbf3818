"""Files of each kind, written for the tests of the search."""

import json
from pathlib import Path

RELEASE = Path(__file__).parents[2] / "release" / "asterisk"
NOTES = {
    "Boiler.md": "# Boiler\n\nBought in 2019.\n\n## Pressure\n\nWith the heating cold, add water until one bar.\n",
    "bread/Sourdough.md": (
        "---\ntags: [recipes, baking/bread]\ndate: 2024-03-01\n---\nFeed the starter in the evening.\n\n"
        "Bake at 230 degrees for forty minutes.\n"
    ),
    "Trip.md": "We took the night train to Vienna. #travel/rail\n\nSee [[Boiler|the boiler note]].\n",
    "garden.txt": "Tomatoes need sun and water.\n\nPrune the apple tree in February.\n",
}


def write_files(directory, files):
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


def names(hits):
    return [hit.path.name for hit in hits]


def pdf(*pages):
    """A PDF of a line of text a page."""
    count = len(pages)
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {count} /Kids [{' '.join(f'{4 + 2 * i} 0 R' for i in range(count))}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        bodies += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    content, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(bodies) + 1
    return (
        f"{content}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(content)}\n%%EOF\n"
    ).encode()


def message(subject, body, sender="Ada <ada@example.org>"):
    return (
        f"From: {sender}\nTo: bob@example.org\nSubject: {subject}\nDate: Mon, 5 Feb 2024 10:00:00 +0000\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{body}\n"
    )


def article(title, *paragraphs):
    text = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return (
        f"<html><head><title>{title}</title></head><body><nav><a href='/'>Home</a> <a href='/x'>Subscribe</a>"
        f"</nav><article><h1>{title}</h1>{text}</article><footer>Cookies</footer></body></html>"
    )


def archived_page(archive, timestamp, outputs, **index):
    folder = archive / "archive" / timestamp
    for name, content in outputs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "index.json").write_text(json.dumps({"timestamp": timestamp, **index}))


def content(index):
    """Everything that is found by rows, without their numbers."""
    return sorted(
        index.store(need_model=False).rows(
            """select files.path, documents.title, tags, date, line, place, words.text, words.headings,
            (select vector from vectors where vectors.id = passages.id)
            from passages join documents on documents.id = document join files on files.id = file
            join words on words.rowid = passages.id"""
        )
    )
