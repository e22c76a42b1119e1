"""Which model was fine-tuned from which, as the user stated it: `tuned.json`, fingerprint -> fingerprint.

No file of a model says this for certain: base models ship chat templates too, and a name is only a name.
"""

from __future__ import annotations

from kick_core.errors import BadRequest, KickError
from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json
from kick_core.store.locks import locked

FILE = "tuned.json"


def tuned_from(store: Store) -> dict[str, str]:
    """Fingerprint of a tuned model -> that of its base.

    Args:
        store: The cache.

    Raises:
        KickError: The file is damaged.
    """
    try:
        return {tuned: str(base) for tuned, base in read_sealed_json(store.root / FILE).items()}
    except FileNotFoundError:
        return {}
    except (Damaged, ValueError, AttributeError) as error:
        raise KickError(
            f"{store.root / FILE} is damaged: remove it, and say again which model was tuned from which "
            f"(`kick reproduce families --model TUNED --tuned-from BASE`)"
        ) from error


def set_base_model(store: Store, tuned: str, base: str) -> None:
    """Record that one model was tuned from another.

    Args:
        store: The cache.
        tuned: The fingerprint of the tuned model.
        base: The fingerprint of its base.

    Raises:
        BadRequest: That would be a circle.
    """
    with locked(store.lock_path("tuned")):
        known = tuned_from(store) | {tuned: base}
        chain, at = {tuned}, base
        while at not in chain and at in known:
            chain.add(at)
            at = known[at]
        if at in chain:
            raise BadRequest("a model cannot be tuned from itself, nor from one that was tuned from it")
        replace_file(store.root / FILE, seal_json(known))
