// From files to passages. HTML, and Markdown by way of HTML, is parsed into a document that no window shows: its scripts
// do not run and its images are not loaded. Only its text is kept.

/* global Papa */
import { marked } from "./vendor/marked.js";

const LARGEST = 50e6;
const PASSAGE = 600; // characters, some 130 tokens
const PARTS = /.{1,599}(?:\s|$)|.{1,600}/gu; // whole words where there are some, and whole characters
const PAUSE_MS = 50;
const HIDDEN = "script, style, template, noscript, nav, svg, iframe, object, head";
const BLOCKS =
  "address, article, aside, blockquote, button, caption, dd, details, dialog, div, dl, dt, fieldset, figcaption, " +
  "figure, footer, form, h1, h2, h3, h4, h5, h6, header, hgroup, hr, legend, li, main, menu, ol, option, p, pre, " +
  "section, select, summary, table, td, textarea, th, ul";
const HEADINGS = "h1, h2, h3, h4, h5, h6";
const sentences = new Intl.Segmenter("en", { granularity: "sentence" });

// A reason why a file is left out, in one sentence.
export class Unreadable extends Error {}

// A reader turns text into sections: { place, paragraphs }. Passages do not reach over their ends.
const READERS = {
  __proto__: null,
  txt: readPlain,
  text: readPlain,
  md: readMarkdown,
  markdown: readMarkdown,
  htm: readHtml,
  html: readHtml,
  xhtml: readHtml,
  jsonl: readJsonLines,
  ndjson: readJsonLines,
  csv: readTable,
  tsv: readTable,
  rss: readFeed,
  atom: readFeed,
  xml: readFeed,
  opml: readFeed,
};

const readerOf = (name) => READERS[name.split(".").pop().toLowerCase()];
export const isReadable = (name) => Boolean(readerOf(name));

export async function readFile({ name, open }) {
  let passages;
  try {
    const file = await open();
    if (file.size > LARGEST) {
      throw new Unreadable(
        `${name}: ${Math.round(file.size / 1e6)} MB, and at most ${LARGEST / 1e6} are read; split it`,
      );
    }
    const text = decode(new Uint8Array(await file.arrayBuffer()), name);
    passages = await passagesOf(readerOf(name)(text, name), name);
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    if (error instanceof DOMException) {
      throw new Unreadable(`${name}: cannot be opened; see whether it was moved or is protected`);
    }
    throw new Unreadable(`${name}: nested too deeply; left out`);
  }
  if (!passages.length) throw new Unreadable(`${name}: no text in it`);
  return passages;
}

export const readPasted = (text) => passagesOf(readPlain(text), "pasted");

function decode(bytes, name) {
  const mark = (bytes[0] << 8) | bytes[1]; // prettier-ignore
  const encoding = { 65534: "utf-16le", 65279: "utf-16be" }[mark] ?? "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch {
    // said below
  }
  throw new Unreadable(`${name}: not text in UTF-8; save it as that, or leave it out if it is a binary file`);
}

const paragraphs = (text) => text.split(/\n\s*\n/);

// Without blank lines, each line stands for itself.
function readPlain(text) {
  const parts = paragraphs(text.replaceAll("\r\n", "\n").trim());
  if (parts.length > 1) return [{ place: "", paragraphs: parts }];
  return parts[0].split("\n").map((line, row) => ({ place: `line ${row + 1}`, paragraphs: [line] }));
}

function readMarkdown(text) {
  const body = text.replace(/^\uFEFF?---\r?\n[\s\S]*?\n---\r?\n/, ""); // YAML front matter
  return readHtml(marked.parse(body));
}

function readHtml(text) {
  const { body } = new DOMParser().parseFromString(text, "text/html");
  for (const element of body.querySelectorAll(HIDDEN)) element.remove();
  for (const element of body.querySelectorAll("br")) element.replaceWith("\n");
  for (const element of body.querySelectorAll(BLOCKS)) {
    element.before("\n\n");
    element.after("\n\n");
  }
  for (const element of body.querySelectorAll(HEADINGS)) element.prepend("\f");
  const sections = [{ place: "", paragraphs: [] }];
  for (const paragraph of paragraphs(body.textContent)) {
    if (paragraph.includes("\f")) {
      sections.push({ place: paragraph.trim().match(/^.{0,80}/su)[0], paragraphs: [] });
    }
    sections.at(-1).paragraphs.push(paragraph);
  }
  return sections;
}

function readJsonLines(text, name) {
  return text.split("\n").flatMap((line, row) => {
    if (!line.trim()) return [];
    try {
      const value = JSON.parse(line);
      const { source, place, text: own } = value ?? {};
      const saved = [source, place, own].every((column) => typeof column === "string"); // by this page
      if (saved) return [{ source, place, paragraphs: own.split("\n") }];
      return [{ place: `row ${row + 1}`, paragraphs: columns(value) }];
    } catch {
      throw new Unreadable(`${name}: row ${row + 1} is not JSON; mend it and add the file again`);
    }
  });
}

function readTable(text, name) {
  const { data, errors } = Papa.parse(text, { header: true, skipEmptyLines: true, dynamicTyping: true });
  const broken = errors.find((error) => error.type === "Quotes");
  if (broken) throw new Unreadable(`${name}: row ${broken.row + 1} has a quote that does not end; mend it`);
  return data.map((row, number) => ({ place: `row ${number + 2}`, paragraphs: columns(row) }));
}

// Of a row, the column `text`, or all that are text.
function columns(row) {
  const own = strings(row?.text);
  return own.some((text) => text.trim()) ? own : strings(row);
}

function strings(value) {
  if (typeof value === "string") return [value];
  return value && typeof value === "object" ? Object.values(value).flatMap(strings) : [];
}

function readFeed(text, name) {
  const xml = new DOMParser().parseFromString(text, "text/xml");
  if (xml.querySelector("parsererror")) throw new Unreadable(`${name}: not well-formed XML; fetch it again`);
  const items = [...xml.querySelectorAll("item, entry, outline")];
  if (!items.length) throw new Unreadable(`${name}: neither RSS, Atom nor OPML`);
  return items.map((item, row) => {
    const children = [...item.children].filter((child) =>
      /^(title|description|summary|content|encoded)$/.test(child.localName),
    );
    const texts = children.map((child) => child.textContent);
    for (const attribute of ["text", "description", "_note"]) texts.push(item.getAttribute(attribute) ?? "");
    return {
      place: `item ${row + 1}`,
      paragraphs: texts.flatMap((html) => readHtml(html)).flatMap((s) => s.paragraphs),
    };
  });
}

// Join short paragraphs of a section, and cut long ones behind a sentence. A long text lets the page answer in between.
async function passagesOf(sections, file) {
  const passages = [];
  let paused = performance.now();
  for (const { source = file, place, paragraphs } of sections) {
    let last;
    for (const paragraph of paragraphs) {
      for (const piece of pieces(paragraph)) {
        if (last && last.text.length + piece.length < PASSAGE) {
          last.text += `\n${piece}`;
        } else {
          last = { source, place, text: piece };
          passages.push(last);
        }
        if (performance.now() - paused > PAUSE_MS) {
          await new Promise((resolve) => setTimeout(resolve));
          paused = performance.now();
        }
      }
    }
  }
  return passages;
}

function* pieces(paragraph) {
  const text = paragraph.replaceAll(/\s+/g, " ").trim();
  let piece = "";
  for (const { segment } of text.length > PASSAGE ? sentences.segment(text) : [{ segment: text }]) {
    for (const part of segment.match(PARTS) ?? []) {
      if (piece && piece.length + part.length > PASSAGE) {
        yield piece.trim();
        piece = "";
      }
      piece += part;
    }
  }
  if (piece) yield piece.trim();
}

// Return the files of a drop, also those in folders: [{ name, open }].
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const files = [];
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) {
      const open = () => new Promise((resolve, reject) => entry.file(resolve, reject));
      files.push({ name: entry.fullPath.slice(1), open });
      continue;
    }
    const reader = entry.createReader();
    for (let some = []; ; entries.push(...some)) {
      some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
    }
  }
  return files;
}
