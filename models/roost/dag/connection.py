"""Connections: how to reach external systems, by conn_id (S45-S50)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Self

import msgspec

from roost.dag import environ, runtime
from roost.exceptions import NotFound, RoostException
from roost.support import masking
from roost.support.task_requests import ConnectionGet, ConnectionRecord, Reply

__all__ = ["Connection"]

_PLAIN_EXTRA = "__extra__"


class Connection:
    """Host, login, password, schema, port and extra of one external system.

    Args:
        conn_id: its name.
        conn_type: kind of system, e.g. ``postgres``.
        host, login, password, schema, port: where and as whom.
        extra: a dict, or JSON text.
        description: what it is for.
        uri: all of it in one: ``type://login:password@host:port/schema?key=value``.

    Raises:
        RoostException: the URI or the extra cannot be read.
    """

    def __init__(
        self,
        conn_id: str = "",
        conn_type: str = "",
        host: str | None = None,
        login: str | None = None,
        password: str | None = None,
        schema: str | None = None,
        port: int | None = None,
        extra: str | dict[str, Any] | None = None,
        description: str | None = None,
        uri: str | None = None,
    ) -> None:
        self.conn_id = conn_id
        self.conn_type = conn_type
        self.host = host
        self.login = login
        self.password = password
        self.schema = schema
        self.port = port
        self.extra = json.dumps(extra) if isinstance(extra, dict) else extra
        self.description = description
        if uri is not None:
            self._read_uri(uri)

    @classmethod
    def get(cls, conn_id: str) -> Connection:
        """The connection of this id: from the environment, else from the database (S48).

        Raises:
            NotFound: there is none (S49).
            RoostException: it is not in the environment, and no task or trigger is running here.
        """
        return cls._from_environment(conn_id) or cls._from_reply(
            conn_id, runtime.ask(ConnectionGet(conn_id), f"Connection {conn_id!r}")
        )

    @classmethod
    async def get_async(cls, conn_id: str) -> Connection:
        """The same for the code of triggers, which must not block: ``await`` it."""
        return cls._from_environment(conn_id) or cls._from_reply(
            conn_id, await runtime.ask_async(ConnectionGet(conn_id), f"Connection {conn_id!r}")
        )

    async_get = get_async  # as Airflow 3 calls it

    @classmethod
    def _from_environment(cls, conn_id: str) -> Connection | None:
        text = environ.lookup("CONN", conn_id)
        return None if text is None else cls.parse(conn_id, text)._masked()

    @classmethod
    def _from_reply(cls, conn_id: str, reply: Reply) -> Connection:
        record = reply.connection
        if record is None:
            raise NotFound(
                f"The conn_id `{conn_id}` isn't defined: set ROOST_CONN_{conn_id.upper()} where "
                f"worker and triggerer start, or `roost connections add {conn_id}`"
            )
        return cls(**msgspec.structs.asdict(record))._masked()

    def _masked(self) -> Self:
        """This connection, its secrets hidden from now on in what the process logs."""
        if self.password:
            masking.register(self.password)
            masking.register(f"{self.login or ''}:{self.password}")  # HTTP's basic form
        if self.extra:
            with suppress(RoostException):  # not JSON: that is told when it is read
                masking.mask_secret(self.extra_dejson, "")
        return self

    @classmethod
    def from_uri(cls, conn_id: str, uri: str) -> Connection:
        """A connection from a URI: ``type://login:password@host:port/schema?key=value``.

        Raises:
            RoostException: it cannot be read.
        """
        return cls(conn_id, uri=uri)

    @classmethod
    def parse(cls, conn_id: str, text: str) -> Connection:
        """A connection from a URI or from a JSON object."""
        if not text.lstrip().startswith("{"):
            return cls(conn_id, uri=text)
        try:
            fields = json.loads(text)
            port = fields.get("port")
            extra = fields.get("extra")
            record = msgspec.convert(
                {
                    **fields,
                    "conn_id": conn_id,
                    "port": int(port) if port not in (None, "") else None,
                    "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
                },
                ConnectionRecord,
            )
        except (ValueError, TypeError, msgspec.ValidationError) as error:
            # Not the text itself: it holds a password.
            raise RoostException(f"Connection {conn_id!r} is not valid JSON: {error}") from None
        return cls(**msgspec.structs.asdict(record))

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """``extra`` as a dict; empty when there is none.

        Raises:
            RoostException: it is not a JSON object.
        """
        if not self.extra:
            return {}
        try:
            value = json.loads(self.extra)
        except ValueError as error:
            raise RoostException(
                f"Connection {self.conn_id!r}: extra is not JSON: {error}"
            ) from None
        if not isinstance(value, dict):
            raise RoostException(f"Connection {self.conn_id!r}: extra is not a JSON object")
        return value

    def get_uri(self) -> str:
        """The connection as a URI; ``Connection(uri=…)`` reads it back."""
        from urllib.parse import quote, urlencode  # late: every DAG file would pay for it

        host = self.host or ""
        scheme = self.conn_type.lower().replace("_", "-")
        # A host may bring its own protocol: type://protocol://host.
        protocol = ""
        if "://" in host:
            protocol, _, host = host.partition("://")
            protocol += "://"
        user = quote(self.login or "", safe="")
        if self.password is not None:
            user += ":" + quote(self.password, safe="")
        place = (user + "@" if user else "") + quote(host, safe="")
        place += f":{self.port}" if self.port is not None else ""
        uri = f"{scheme}://{protocol}{place}/{quote(self.schema or '', safe='')}"
        return f"{uri}?{urlencode(self._query())}" if self.extra else uri

    def _query(self) -> dict[str, Any]:
        with suppress(RoostException):  # not an object: it travels as it is
            extra = self.extra_dejson
            texts = all(isinstance(value, str) and value for value in extra.values())
            if extra and texts and _PLAIN_EXTRA not in extra:
                return extra
        return {_PLAIN_EXTRA: self.extra}

    def _read_uri(self, uri: str) -> None:
        from urllib.parse import parse_qsl, unquote, urlsplit  # late, as in get_uri

        scheme, found, rest = uri.partition("://")
        if not found or not scheme:
            raise RoostException(
                f"Connection {self.conn_id!r} must be a URI such as "
                "type://login:password@host:port/schema, or a JSON object"
            )
        protocol = ""
        if "://" in rest.partition("?")[0]:
            protocol, _, rest = rest.partition("://")
            protocol += "://"
        try:
            parts = urlsplit("//" + rest)
            self.port = parts.port
        except ValueError:
            raise RoostException(
                f"Connection {self.conn_id!r}: the host or port of the URI is not valid; what is "
                "special in login or password must be percent-encoded (# is %23, / is %2F)"
            ) from None
        self.conn_type = "postgres" if scheme == "postgresql" else scheme.replace("-", "_")
        # Not parts.hostname: it lowers the case.
        place = parts.netloc.rpartition("@")[2]
        if self.port is not None or place.endswith(":"):
            place = place.rpartition(":")[0]
        self.host = protocol + unquote(place.strip("[]")) if place or protocol else None
        self.login = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password) if parts.password is not None else None
        self.schema = unquote(parts.path.lstrip("/")) or None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.extra = query.get(_PLAIN_EXTRA) or (json.dumps(query) if query else None)

    def as_record(self) -> ConnectionRecord:
        """The connection as it is stored."""
        return ConnectionRecord(
            **{field: getattr(self, field) for field in ConnectionRecord.__struct_fields__}
        )

    def as_json(self) -> str:
        """The connection as a JSON object, which :meth:`parse` reads; without what is not set."""
        fields = msgspec.structs.asdict(self.as_record())
        del fields["conn_id"]
        return json.dumps({name: value for name, value in fields.items() if value is not None})

    def __repr__(self) -> str:
        return f"<Connection {self.conn_id} {self.conn_type}>"
