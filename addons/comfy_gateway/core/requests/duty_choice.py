"""Which duty server a user is put on."""

from collections.abc import Mapping, Sequence


def pick(order: Sequence[str], load: Mapping[str, int | None], stuck_to: str | None) -> str:
    """The id of the server for one user.

    ``order`` lists all servers, home first (at least one); ``load`` says how many prompts each healthy one has and
    None for one that is not healthy. A user stays where they are while that server is healthy; otherwise the
    shortest queue wins, the earlier one of equals. With none healthy the user stays, or gets the first: an error
    from a real server is better than a guess.
    """
    stays = stuck_to if stuck_to in order else None
    if stays is not None and load.get(stays) is not None:
        return stays
    healthy = [
        (queue, position, id_) for position, id_ in enumerate(order) if (queue := load.get(id_)) is not None
    ]
    if healthy:
        return min(healthy)[2]
    return order[0] if stays is None else stays
