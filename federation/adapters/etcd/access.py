"""etcd's users and roles: one role of the same name for each user, known by its certificate.

Decides: how rights are brought to what is asked: a role's rights are replaced, never only added to.
Leaves to others: which rights those are (``wire.etcd_access``).
Invariants: doing the same again changes nothing; users have no password, so that nobody is who he
has no certificate for.
"""

from __future__ import annotations

from collections.abc import Iterable

from aetcd import rpc

from federation.adapters.etcd.connection import Connection, EtcdSettings, Message
from federation.ports import StoreRefused
from federation.wire.etcd_access import Permission

ROOT = "root"
"""etcd's own name for who may do everything."""


class EtcdAccess:
    """Users and roles of one etcd. Calls raise ``StoreUnavailable`` and ``StoreRefused``."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._connection = Connection(settings)

    def __repr__(self) -> str:
        return f"EtcdAccess({self._connection!r})"

    async def grant(self, user: str, permissions: Iterable[Permission]) -> None:
        """Bring ``user``, who need not be there yet, to exactly ``permissions``."""
        auth = self._auth()
        await self._once(auth.RoleAdd, rpc.AuthRoleAddRequest(name=user), f"adding role {user}")
        wanted = {_range(permission): permission for permission in permissions}
        found = await self._call(
            auth.RoleGet, rpc.AuthRoleGetRequest(role=user), f"reading role {user}"
        )
        for has in found.perm:
            if (bytes(has.key), bytes(has.range_end)) not in wanted:
                request = rpc.AuthRoleRevokePermissionRequest(
                    role=user, key=has.key, range_end=has.range_end
                )
                await self._call(auth.RoleRevokePermission, request, f"taking rights of {user}")
        for (key, end), permission in wanted.items():
            kind = rpc.Permission.READWRITE if permission.write else rpc.Permission.READ
            request = rpc.AuthRoleGrantPermissionRequest(
                name=user, perm=rpc.Permission(permType=kind, key=key, range_end=end)
            )
            await self._call(auth.RoleGrantPermission, request, f"giving rights to {user}")
        await self._add_user(user)
        granted = rpc.AuthUserGrantRoleRequest(user=user, role=user)
        await self._call(auth.UserGrantRole, granted, f"giving {user} its role")

    async def remove(self, user: str) -> None:
        """Take ``user`` and its role away; who is not there is no error."""
        auth = self._auth()
        await self._once(
            auth.UserDelete, rpc.AuthUserDeleteRequest(name=user), f"removing user {user}"
        )
        await self._once(
            auth.RoleDelete, rpc.AuthRoleDeleteRequest(role=user), f"removing role {user}"
        )

    async def enable(self) -> None:
        """Ask everyone for a certificate's user from now on; ``root`` may do everything."""
        auth = self._auth()
        await self._once(auth.RoleAdd, rpc.AuthRoleAddRequest(name=ROOT), "adding role root")
        await self._add_user(ROOT)
        granted = rpc.AuthUserGrantRoleRequest(user=ROOT, role=ROOT)
        await self._call(auth.UserGrantRole, granted, "giving root its role")
        await self._call(auth.AuthEnable, rpc.AuthEnableRequest(), "enabling authentication")

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    def _auth(self) -> Message:
        return rpc.AuthStub(self._connection.link().channel)

    async def _add_user(self, user: str) -> None:
        request = rpc.AuthUserAddRequest(name=user, options=rpc.UserAddOptions(no_password=True))
        await self._once(self._auth().UserAdd, request, f"adding user {user}")

    async def _once(self, call: Message, request: Message, attempt: str) -> None:
        """A call whose outcome may be there already: added before, removed before."""
        try:
            await self._call(call, request, attempt)
        except StoreRefused as error:
            if not any(word in str(error) for word in ("already exists", "not found")):
                raise

    async def _call(self, call: Message, request: Message, attempt: str) -> Message:
        link = self._connection.link()
        try:
            return await call(request, timeout=self._connection.settings.call_timeout_s)
        except rpc.AioRpcError as error:
            raise await self._connection.failure(link, error, attempt) from error


def _range(permission: Permission) -> tuple[bytes, bytes]:
    """etcd's form: a key, and where the range of keys below it ends."""
    key = permission.key.encode()
    if not permission.key.endswith("/"):
        return key, b""
    return key, key[:-1] + bytes([key[-1] + 1])
