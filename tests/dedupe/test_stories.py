"""Items that tell the same story come together, others stay apart, and a state remembers them."""

import random
import shutil

import numpy as np
import pytest
from conftest import ANIMALS, PLACES, RELEASE

from asterisk import AsteriskEncoder
from asterisk.dedupe import Deduplicator, Item
from asterisk.dedupe.grouping import MEANING, Cluster, Features, agglomerate, calibrated_threshold, neighbours
from asterisk.errors import InputError

DAY = 86400.0
QUAKE = [
    Item("Strong earthquake shakes the island of Samos", "No deaths are reported.", "https://a.example/1", 0),
    Item("Samos hit by magnitude 6 earthquake", "Houses collapsed near the harbour.", "https://b.example/1", 3600),
    Item("Earthquake on Samos: people sleep outdoors", "", "https://c.example/1", 7200),
]
CUP = [
    Item("United win the cup after extra time", "A late goal decided the final.", "https://a.example/2", 0),
    Item("Late goal gives United the cup", "The final went to extra time.", "https://b.example/2", 1800),
]
OTHER = [
    Item("Parliament passes the budget", "", "https://a.example/3", 0),
    Item("How to bake a sourdough loaf", "", "https://b.example/3", 0),
    Item("New telescope sees first light", "", "https://c.example/3", 0),
]
FEED = QUAKE + CUP + OTHER


@pytest.fixture
def stories(released_encoder, tmp_path):
    """Group items; return the titles of each story, largest first."""

    def call(items, **options):
        with Deduplicator(released_encoder, **options) as deduplicator:
            deduplicator.add(items)
            return sorted(
                (sorted(member.title for member in story.members) for story in deduplicator.stories()),
                key=lambda titles: (-len(titles), titles),
            )

    return call


def titles(items):
    return sorted(item.title for item in items)


def test_stories_come_together(stories):
    assert stories(FEED)[:2] == [titles(QUAKE), titles(CUP)]
    assert len(stories(FEED)) == 5


def test_the_order_of_arrival_does_not_matter(stories):
    expected = stories(FEED)
    for seed in range(5):
        shuffled = FEED.copy()
        random.Random(seed).shuffle(shuffled)
        assert stories(shuffled) == expected


def test_a_story_lasts_no_longer_than_the_window(stories):
    late = Item("Samos earthquake: magnitude 6 tremor shakes the island", "", "https://d.example/1", 2 * DAY)
    assert len(stories([*QUAKE, late])[0]) == 4
    assert len(stories([*QUAKE, late], window=DAY)[0]) == 3


def test_the_same_page_is_one_item_and_the_same_text_one_story(stories):
    again = Item(QUAKE[0].title, "Updated.", "http://a.example/1?utm_source=x#top", 60)
    copy = Item(OTHER[0].title.upper(), "", "https://mirror.example/3", 60)
    found = stories([*FEED, again, copy])
    assert found[0] == titles(QUAKE)
    assert [OTHER[0].title, OTHER[0].title.upper()] in [sorted(group, reverse=True) for group in found]


def test_without_times_everything_may_belong_together(stories):
    assert stories([Item(item.title, item.text) for item in FEED])[0] == titles(QUAKE)


def test_nothing_is_no_story(stories):
    assert stories([]) == []


def test_state_remembers(released_encoder, tmp_path):
    def run(items):
        with Deduplicator(released_encoder, tmp_path / "state", threshold=0.2) as deduplicator:
            deduplicator.add(items)
            found = deduplicator.stories()
            deduplicator.keep()
            return {story.number: [(member.title, member.new) for member in story.members] for story in found}

    first = run([*QUAKE[:2], *OTHER])
    number = next(number for number, members in first.items() if len(members) == 2)
    assert run([*QUAKE[:2], *OTHER]) == {}
    assert run(QUAKE) == {number: [(QUAKE[0].title, False), (QUAKE[1].title, False), (QUAKE[2].title, True)]}
    cup = run(CUP)
    assert [new for _, new in next(iter(cup.values()))] == [True, True]
    assert max(first) < min(cup)


def test_two_reported_stories_stay_two(released_encoder, tmp_path):
    between = [Item(QUAKE[0].title, "", f"https://{name}.example", time) for name, time in (("x", 0), ("y", DAY))]
    with Deduplicator(released_encoder, tmp_path / "state", window=DAY / 2, threshold=0.2) as deduplicator:
        deduplicator.add(between)
        assert len(deduplicator.stories()) == 2
        deduplicator.keep()
    with Deduplicator(released_encoder, tmp_path / "state", threshold=0.2) as deduplicator:
        deduplicator.add([Item("Strong earthquake on Samos", "", "https://z.example", DAY / 2)])
        (story,) = deduplicator.stories()
        assert len(story.members) == 2


def test_what_was_not_kept_is_reported_again(released_encoder, tmp_path):
    for _ in range(2):
        with Deduplicator(released_encoder, tmp_path / "state") as deduplicator:
            deduplicator.add(QUAKE)
            assert all(member.new for member in deduplicator.stories()[0].members)


def test_more_items_may_come_after_the_stories(released_encoder):
    with Deduplicator(released_encoder) as deduplicator:
        deduplicator.add(OTHER)
        assert len(deduplicator.stories()) == 3
        deduplicator.add(CUP)
        assert len(deduplicator.stories()) == 4
        deduplicator.keep()
        deduplicator.add(QUAKE)
        assert len(deduplicator.stories()) == 1


def test_items_that_share_an_address_are_told_apart_by_their_titles(stories):
    versions = [
        Item(f"Version {n} fixes {what}", "", f"https://a.example/log#v{n}") for n, what in enumerate(PLACES[:3])
    ]
    assert sum(len(story) for story in stories([*versions, versions[0]])) == 3


def test_many_reports_of_one_event_come_together(stories):
    """The pairs of one large story must not pass for those of unrelated items: they tell the threshold."""
    verbs = ("shakes", "strikes", "hits", "damages", "rattles", "jolts")
    quake = [Item(f"Strong earthquake {verb} Lima, {n} hurt", "", f"{verb}{n}") for verb in verbs for n in (4, 7)]
    topics = """dentists on strike|a bridge is painted|tax forms due|whale seen|opera house reopens|snow in hills
        |library fines end|new tram line|chess title won|bakery closes|bank lifts rates|ferry sold|wolves return
        |school of music|football coach leaves|phone masts fail|grain prices fall|painter dies at ninety"""
    found = stories([*quake, *OTHER, *(Item(topic.strip(), "", topic) for topic in topics.split("|"))])
    assert found[0] == titles(quake)


def test_a_copy_of_something_older_than_a_smaller_window(released_encoder, tmp_path):
    copies = [
        Item("Mill sold", "At last", f"https://{name}.example", time) for name, time in (("a", 0), ("b", 20 * DAY))
    ]
    for window, keep in ((30 * DAY, True), (30 * DAY, False), (DAY, True)):
        with Deduplicator(released_encoder, tmp_path / "state", window) as deduplicator:
            deduplicator.add(copies[:1] if window == 30 * DAY and keep else copies)
            found = deduplicator.stories()
            if keep:
                deduplicator.keep()
    assert [member.new for member in found[0].members] == [False, True]


def test_state_of_another_model_is_refused(released_encoder, tmp_path):
    Deduplicator(released_encoder, tmp_path / "state").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
    shutil.copytree(RELEASE, tmp_path / "other", ignore=shutil.ignore_patterns("model.safetensors", "model.onnx"))
    with (tmp_path / "other" / "tokenizer.json").open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match="another model"):
        Deduplicator(AsteriskEncoder(str(tmp_path / "other")), tmp_path / "state")


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 20, b"SQLite format 3\0"]
)
def test_other_files_are_no_state(released_encoder, tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(InputError, match="state: "):
        Deduplicator(released_encoder, tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == content


def test_one_process_at_a_time(released_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("asterisk.dedupe.state.WAIT_SECONDS", 0.1)
    with (
        Deduplicator(released_encoder, tmp_path / "state"),
        pytest.raises(InputError, match="another process is using it"),
    ):
        Deduplicator(released_encoder, tmp_path / "state")


def test_borderline_pairs_are_those_nearest_to_the_threshold(released_encoder):
    with Deduplicator(released_encoder, threshold=0.3) as deduplicator:
        deduplicator.add(FEED)
        deduplicator.stories()
        cosines = deduplicator.features.cosines(slice(None), slice(None))[np.triu_indices(len(FEED), 1)]
        pairs = deduplicator.borderline(limit=3)
    nearest = sorted(cosines, key=lambda cosine: abs(cosine - 0.3))[:3]
    assert [pair.cosine for pair in pairs] == pytest.approx(sorted(nearest, reverse=True), abs=1e-4)
    assert {pair.first for pair in pairs} | {pair.second for pair in pairs} <= {item.title for item in FEED}


def on_a_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def merge(features, threshold):
    times = np.zeros(len(features))
    clusters = [Cluster.of([row], features, times) for row in range(len(features))]
    pairs = [(one, other) for one, other, _ in neighbours(features, times, 0.0, threshold)]
    return sorted(sorted(cluster.members) for cluster in agglomerate(clusters, pairs, 0.0, threshold))


def test_average_linkage_does_not_chain():
    features = Features(on_a_circle(0, 20, 40, 60, 80, 100), [""] * 6)
    assert merge(features, MEANING * 0.9) == [[0, 1], [2, 3], [4, 5]]


def test_average_linkage_is_that_of_scipy():
    from scipy.cluster.hierarchy import fcluster, linkage

    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(30, 8)), 6, axis=0) + rng.normal(size=(180, 8)) * 0.7
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    texts = [f"item{row % 7} word{row // 6} word{row // 12}" for row in range(180)]
    features = Features(vectors, texts)
    joint = np.hstack([vectors * MEANING**0.5, features.words.toarray() * (1 - MEANING) ** 0.5])
    labels = fcluster(linkage(joint, "average", metric="cosine"), 0.4, "distance")
    expected = sorted(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))
    assert 20 < len(expected) < 100
    assert merge(features, 0.6) == expected


def test_neighbours_are_all_pairs_of_the_window(monkeypatch):
    monkeypatch.setattr("asterisk.dedupe.grouping.BLOCK", 16)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    times = np.sort(rng.uniform(0, 50, size=100))
    features = Features(vectors, [f"word{row % 9}" for row in range(100)])
    found = {(one, other) for one, other, _ in neighbours(features, times, 10.0, 0.3)}
    cosines = features.cosines(slice(None), slice(None))
    assert found == {
        (i, j) for i in range(100) for j in range(i) if cosines[i, j] >= 0.3 and times[i] - times[j] <= 10.0
    }


def test_threshold_follows_the_feed(released_encoder):
    animals = [f"the {animal} sat by the {place}" for animal in ANIMALS for place in PLACES[:20]]
    mixed = [f"{item.title} {place}" for item in OTHER for place in PLACES]

    def threshold(texts):
        features = Features(released_encoder.encode(texts), texts)
        return calibrated_threshold(features, np.zeros(len(texts)), DAY)

    assert threshold(animals) > threshold(mixed[:: len(mixed) // 10] + animals[:1]) + 0.1
