// What the page shows of passages. Texts go in as text, never as HTML.

import { groupColour } from "./map.js";

const GROUPS_SHOWN = 40;
const TITLE = 200; // what does not fit on a line is not shown

export const byId = (id) => document.getElementById(id);
export const number = (value) => value.toLocaleString("en");
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const origin = ({ source, place }) => [source, place].filter(Boolean).join(", ");

export function showResults(found) {
  byId("results").replaceChildren(
    ...found.map(({ passage, cosine }) =>
      element(
        "li",
        {},
        element("p", { textContent: passage.text, dir: "auto" }),
        element("p", { className: "hint", textContent: `${origin(passage)} · ${cosine.toFixed(2)}` }),
      ),
    ),
  );
}

export function showGroups(groups, passages) {
  const shared = groups.filter((group) => group.length > 1);
  const alone = groups.length - shared.length;
  const largest = shared.length > GROUPS_SHOWN ? `, the ${GROUPS_SHOWN} largest below` : "";
  byId("grouped").textContent = passages.length
    ? `${count(shared.length, "group")} of two or more${largest}; ${count(alone, "text")} alone.`
    : "No texts yet.";
  byId("groups").replaceChildren(
    ...shared.slice(0, GROUPS_SHOWN).map((group, rank) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.backgroundColor = groupColour(rank);
      const title = passages[group[0]].text.slice(0, TITLE);
      const details = element("details", {}, element("summary", {}, swatch, `${number(group.length)}: ${title}`));
      // Thousands of texts would be slow to lay out, and few are opened.
      details.addEventListener("toggle", () => details.append(list(group, passages)), { once: true });
      return details;
    }),
  );
}

function list(group, passages) {
  return element("ul", {}, ...group.map((row) => element("li", { textContent: passages[row].text, dir: "auto" })));
}

export function showPassage(passage) {
  byId("map-text").textContent = `${passage.text} (${origin(passage)})`;
}

export function showStock(passages) {
  const sources = new Set(passages.map(({ source }) => source)).size;
  const remove = byId("delete");
  remove.textContent = `Delete ${count(passages.length, "passage")} of ${count(sources, "source")}, with vectors and groups`;
  remove.disabled = byId("export").disabled = !passages.length;
  const waiting = passages.filter(({ vector }) => !vector).length;
  byId("continue").hidden = !waiting;
  byId("continue").textContent = `Go on: ${count(waiting, "passage")} to embed`;
}

export function showProgress(label, share, text = "", stoppable = false) {
  byId("working").hidden = false;
  byId("stop").hidden = !stoppable;
  byId("progress-label").textContent = label;
  byId("progress").value = share;
  byId("progress-text").textContent = text;
}

export function hideProgress() {
  byId("working").hidden = true;
}

export function showEmbedding({ done, total, rate, left }) {
  const time = left < 90 ? `${Math.ceil(left)} s` : `${Math.round(left / 60)} min`;
  const text = `${number(done)} of ${number(total)}, ${rate.toFixed(0)} a second, ${time} left`;
  showProgress("Embedding", done / total, text, true);
}
