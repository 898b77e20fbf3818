"""What a visitor does: add texts, search, group, look at the map, save, delete."""

import json

import numpy as np
import pytest
from conftest import invent_pairs
from loader_rows import SENTENCES, normalise, worst_cosine
from scipy.cluster.hierarchy import fcluster, linkage
from web_pages import NOTES, add_files, clear_status, open_page, paste, search, stored, wait_for

pytestmark = pytest.mark.slow

EMBED = """async ([texts, threads]) => {
    const { wrap } = await import("./vendor/comlink.mjs");
    const worker = new Worker("worker.js", { type: "module" });
    const model = wrap(worker);
    const used = await model.load("wasm", threads);
    const vectors = [...(await model.embed(texts))];
    worker.terminate();
    return { used, vectors };
}"""


@pytest.mark.parametrize("threads", [1, 2])
def test_vectors_are_those_of_python(page, released_encoder, threads):
    found = page.evaluate(EMBED, [SENTENCES, threads])
    assert found["used"] == threads
    vectors = np.array(found["vectors"]).reshape(len(SENTENCES), -1)
    assert worst_cosine(normalise(vectors), released_encoder.encode(SENTENCES)) >= 0.999


def test_search(page):
    paste(page, NOTES)
    assert search(page, "pets resting")[0] in NOTES[:2]
    assert set(search(page, "no warm water")[:2]) == set(NOTES[2:4])
    assert search(page, "recipe")[0] == NOTES[6]


def test_groups_are_those_of_average_linkage(page):
    texts = [pair["summary"] for pair in invent_pairs(400)]
    texts = list(dict.fromkeys(texts))
    paste(page, texts)
    vectors = normalise([passage["vector"] for passage in stored(page)])
    tree = linkage(vectors, method="average", metric="cosine")
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        found = page.evaluate(
            """async (threshold) => {
                const { getDerived } = await import("./store.js");
                const { cut } = await import("./linkage.js");
                const { ids, links } = await getDerived();
                return cut(ids.length, links, threshold);
            }""",
            threshold,
        )
        labels = fcluster(tree, 1 - threshold, criterion="distance")
        expected = {frozenset(np.flatnonzero(labels == label)) for label in set(labels)}
        assert {frozenset(group) for group in found} == expected, threshold
        page.fill("#threshold", str(threshold))
        shared = sum(len(group) > 1 for group in expected)
        wait_for(page, "#grouped", f"{shared} group{'s' * (shared != 1)} of two or more")


def test_map_is_read_with_keys_and_pointer(page):
    paste(page, NOTES)
    page.focus("#canvas-box")
    page.keyboard.press("ArrowRight")
    assert "(pasted, line" in page.inner_text("#map-text")
    read = {page.inner_text("#map-text")}
    for key in ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"] * 4:
        page.keyboard.press(key)
        read.add(page.inner_text("#map-text"))
    assert len(read) > 3
    box = page.locator("#canvas").bounding_box()
    before = page.inner_text("#map-text")
    for x in range(0, int(box["width"]), 6):
        for y in range(0, int(box["height"]), 40):
            page.mouse.move(box["x"] + x, box["y"] + y)
        if page.inner_text("#map-text") != before:
            return
    pytest.fail("no dot told its text")


def test_what_is_kept_is_bytes_and_goes_with_one_click(page):
    paste(page, NOTES)
    assert page.inner_text("#delete") == "Delete 7 passages of 1 source, with vectors and groups"
    kinds = page.evaluate(
        """async () => {
            const { allPassages } = await import("./store.js");
            return (await allPassages()).map(({ vector }) => `${vector.constructor.name} ${vector.byteLength}`);
        }"""
    )
    assert set(kinds) == {"Int8Array 256"}
    page.click("#delete")
    wait_for(page, "#status", "7 passages deleted.")
    assert stored(page) == []
    assert page.evaluate("async () => (await import('./store.js')).getDerived()") is None
    assert page.is_hidden("#map") and page.inner_text("#groups") == ""


def test_dots_keep_their_rings_and_the_chosen_one_while_the_slider_moves(page):
    paste(page, NOTES)
    search(page, "pets resting")
    page.focus("#canvas-box")
    for key in ("ArrowRight", "+"):
        page.keyboard.press(key)
    shown = """() => {
        const { data, scales } = Chart.getChart("canvas");
        const [rings, chosen] = data.datasets.slice(-2).map(({ data }) => data.map(({ row }) => row));
        return { rings, chosen, left: scales.x.min, right: scales.x.max };
    }"""
    before = page.evaluate(shown)
    assert len(before["rings"]) == len(NOTES) and len(before["chosen"]) == 1
    page.fill("#threshold", "0.9")
    assert page.evaluate(shown) == before
    paste(page, ["One more."])
    after = page.evaluate(shown)
    assert len(after["rings"]) == len(NOTES) + 1
    assert after["chosen"] == [], "the dots are at other places"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_texts(page, count):
    if count:
        paste(page, NOTES[:count])
    for threshold in ("0.5", "0.95"):
        page.fill("#threshold", threshold)
    assert page.is_hidden("#map")
    told = ["No texts yet.", "0 groups of two or more; 1 text alone.", "0 groups of two or more; 2 texts alone."]
    assert page.inner_text("#grouped") == told[count]
    page.fill("#query", "pets")
    told = ["There are no texts yet.", "The nearest of 1 passage:", "The nearest of 2 passages:"]
    wait_for(page, "#found", told[count])
    assert page.locator("#results li").count() == count


def test_texts_are_taken_at_once_and_deleted_at_once(page):
    texts = [f"{pair['summary']}, and that was number {i}" for i, pair in enumerate(invent_pairs(600))]
    page.fill("#pasted", "\n".join(texts))
    page.click("#add")
    wait_for(page, "#progress-text", " a second, ")
    page.fill("#pasted", NOTES[0])
    page.click("#add")
    assert page.input_value("#pasted") == ""
    page.click("#delete")
    wait_for(page, "#status", f"{len(texts) + 1} passages deleted.")
    assert stored(page) == []


def test_many_passages_are_added_with_time_to_answer(page):
    turns = page.evaluate(
        """async () => {
            const { addPassages } = await import("./store.js");
            let [turns, done] = [0, false];
            const count = () => {
                turns++;
                if (!done) setTimeout(count);
            };
            count();
            await addPassages(Array.from({ length: 5000 }, (_, i) => ({ source: "s", text: `text ${i}` })));
            done = true;
            return turns;
        }"""
    )
    page.evaluate("async () => (await import('./store.js')).deleteAll()")
    assert turns > 5


def test_vectors_and_groups_of_another_model_are_made_again(browser, site):
    with browser.new_context() as context:
        page = open_page(context, site)
        paste(page, NOTES)
        groups = page.inner_text("#grouped")
        page.evaluate(
            """async () => {
                const { allPassages, getDerived, putDerived, updatePassages } = await import("./store.js");
                const passages = await allPassages();
                for (const passage of passages) Object.assign(passage, { model: "old", vector: new Int8Array(3) });
                await updatePassages(passages);
                await putDerived({ ...(await getDerived()), model: "old", links: { pairs: [], cosines: [] } });
            }"""
        )
        page.reload()
        wait_for(page, "#continue", "Go on: 7 passages to embed")
        page.click("#continue")
        wait_for(page, "#grouped", groups)
        assert {len(passage["vector"]) for passage in stored(page)} == {256}


def test_two_tabs_show_the_same(browser, site):
    with browser.new_context() as context:
        first, second = open_page(context, site), open_page(context, site)
        paste(first, NOTES)
        wait_for(second, "#delete", "Delete 7 passages of 1 source")
        wait_for(second, "#grouped", first.inner_text("#grouped"))
        paste(second, [*NOTES, "One more."])
        assert [passage["text"] for passage in stored(first)] == [*NOTES, "One more."]
        texts = [f"{pair['summary']}, and that was number {i}" for i, pair in enumerate(invent_pairs(600))]
        first.fill("#pasted", "\n".join(texts))
        first.click("#add")
        wait_for(first, "#progress-text", " a second, ")
        wait_for(second, "#delete", f"Delete {len(texts) + 8} passages")
        second.click("#delete")
        wait_for(second, "#status", "deleted")
        wait_for(first, "#grouped", "No texts yet.")
        assert first.is_disabled("#delete") and first.is_hidden("#continue")
        assert stored(first) == []


def test_save_and_add_again(page, tmp_path):
    add_files(
        page,
        tmp_path,
        {"note.md": "# Boiler\n\nBleed it.\n\n- reset\n- wait\n\n# Cat\n\nFeed it.", "rtl.txt": "שלום"},
    )
    saved = [(passage["source"], passage["place"], passage["text"]) for passage in stored(page)]
    with page.expect_download() as download:
        page.click("#export")
    lines = download.value.path().read_text()
    add_files(page, tmp_path, {"again.jsonl": lines})
    assert len(stored(page)) == len(saved), "they are here already"
    page.click("#delete")
    add_files(page, tmp_path, {"again.jsonl": lines})
    assert [(passage["source"], passage["place"], passage["text"]) for passage in stored(page)] == saved


def test_saved_lines_have_groups(page):
    paste(page, NOTES)
    page.fill("#threshold", "0.5")
    with page.expect_download() as download:
        page.click("#export")
    lines = download.value.path().read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == NOTES
    assert json.loads(lines[0])["group"] == json.loads(lines[1])["group"] is not None


def test_same_texts_are_kept_once(page):
    paste(page, NOTES)
    paste(page, [*NOTES, "One more."])
    assert [passage["text"] for passage in stored(page)] == [*NOTES, "One more."]


def test_stopped_work_goes_on_after_a_reload(browser, site):
    texts = [f"{pair['summary']}, and that was number {i}" for i, pair in enumerate(invent_pairs(600))]
    with browser.new_context() as context:
        page = open_page(context, site)
        page.fill("#pasted", "\n".join(texts))
        page.click("#add")
        wait_for(page, "#progress-text", " a second, ")
        page.click("#stop")
        wait_for(page, "#status", "Stopped")
        done = sum(passage["vector"] is not None for passage in stored(page))
        assert 0 < done < len(texts)
        page.reload()
        wait_for(page, "#continue", f"Go on: {len(texts) - done} passages to embed")
        wait_for(page, "#status", "Ready.")
        clear_status(page)
        page.click("#continue")
        wait_for(page, "#status", "Ready.")
        assert all(passage["vector"] for passage in stored(page))
        assert page.is_hidden("#continue")


def test_graphics_processor_is_used_only_if_it_is_faster_and_equal(launch, site):
    browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    page = open_page(browser.new_context(), site)
    if not page.is_visible("#graphics"):
        pytest.skip("this Chromium has no WebGPU")
    page.click("#graphics")
    wait_for(page, "#status", "The graphics processor takes")
    used = "is used from now on" in page.inner_text("#status")
    assert ("WebGPU" in page.inner_text("#device-runtime")) == used
    paste(page, NOTES)
    assert search(page, "pets resting")[0] in NOTES[:2]
    browser.close()
