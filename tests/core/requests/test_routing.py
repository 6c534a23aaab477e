"""Which backend answers which class of request."""

import pytest

from comfy_gateway.core.requests.classify import RequestClass
from comfy_gateway.core.requests.routing import AT_HOME, IS_TRANSFER, choose
from comfy_gateway.core.requests.upstream import Backend, Source, Upstream

HOME, POD, OWNER = (
    Backend(name, source, Upstream("http", f"{name}.test", 80))
    for name, source in [("duty-0", Source.DUTY), ("pod", Source.PRIVATE), ("duty-1", Source.DUTY)]
)


@pytest.mark.parametrize("request_class", RequestClass)
def test_the_current_backend_answers_all_but_what_belongs_home(request_class: RequestClass) -> None:
    expected = HOME if request_class in {RequestClass.HOME, RequestClass.INTERFACE} else POD
    assert choose(request_class, home=HOME, current=POD) is expected


@pytest.mark.parametrize("request_class", RequestClass)
def test_the_owner_of_a_file_counts_but_for_what_belongs_home(request_class: RequestClass) -> None:
    chosen = choose(request_class, home=HOME, current=POD, owner=OWNER)
    assert (chosen is OWNER) == (request_class not in AT_HOME)


def test_a_page_that_polls_does_not_keep_a_pod_alive() -> None:
    assert {RequestClass.PROMPT, RequestClass.INPUTS} <= IS_TRANSFER
    assert not IS_TRANSFER & (AT_HOME | {RequestClass.QUEUE, RequestClass.EVENTS, RequestClass.COMPUTE})
