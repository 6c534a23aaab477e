from comfy_gateway.core.requests.duty_servers import alias_of, id_by_position, id_of
from comfy_gateway.core.requests.upstream import Upstream

HERE, THERE = Upstream.parse("http://10.0.0.5:8188/"), Upstream.parse("http://10.0.0.6:8188/")


def test_a_server_is_called_by_its_address_which_its_names_do_not_tell() -> None:
    assert id_of(HERE) == id_of(Upstream.parse("http://10.0.0.5:8188"))
    assert id_of(HERE) != id_of(THERE)
    assert alias_of(HERE) != alias_of(THERE)
    for name in (id_of(HERE), alias_of(HERE)):
        assert "10.0.0.5" not in name
        assert "8188" not in name


def test_an_alias_that_was_once_shown_stays() -> None:
    assert alias_of(HERE) == "server-8ad0b0cc"


def test_no_server_is_called_as_a_place_in_the_list_was() -> None:
    assert id_by_position(1) == "duty-1"
    assert len(id_of(HERE)) > len(id_by_position(999))
