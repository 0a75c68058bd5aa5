"""What an API server's refusals mean: wait for rights, or leave this object alone."""

from __future__ import annotations

import pytest

from federation.adapters.kubernetes.connection import (
    AccessDenied,
    ApiServerRefused,
    _of_code,
)

FORBIDDEN = 'services "a" is forbidden: '


@pytest.mark.parametrize(
    "why",
    [
        "exceeded quota: most, requested: services=1, used: services=1, limited: services=1",
        "unable to create new content in namespace app because it is being terminated",
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no more of them",
        'violates PodSecurity "restricted:latest": runAsNonRoot != true',
    ],
)
def test_what_admission_refuses_is_not_waited_for(why: str) -> None:
    assert isinstance(_of_code("POST /services", 403, FORBIDDEN + why), ApiServerRefused)


def test_rights_that_are_missing_may_come() -> None:
    why = 'User "agent" cannot create resource "services" in API group "" in the namespace "app"'
    assert isinstance(_of_code("POST /services", 403, FORBIDDEN + why), AccessDenied)
    assert isinstance(_of_code("POST /services", 401, "Unauthorized"), AccessDenied)
