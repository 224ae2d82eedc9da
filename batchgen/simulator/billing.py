"""Keep the endpoint's own bill: charges and balance, on disk before a response is sent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path

import orjson

from batchgen.simulator.errors import ApiError

MICROS_PER_DOLLAR = 1_000_000
REFUNDED = "refunded"


def parse_micros(dollars: str) -> int:
    """Return whole micro-dollars. Raises ValueError for finer or negative amounts and bad text."""
    try:
        micros = Decimal(dollars) * MICROS_PER_DOLLAR
    except InvalidOperation:
        raise ValueError(f"{dollars!r} is not an amount in dollars, like 0.0377") from None
    if not micros.is_finite() or micros < 0 or micros != micros.to_integral_value():
        raise ValueError(f"{dollars!r} is not an amount in dollars of at most six decimals")
    return int(micros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of the bill.

    `status` is the status of the response, or "dropped". The line of a refund repeats that of its
    charge with a negative amount.
    """

    kind: str
    seq: int
    time: float
    request_id: str
    idempotency_key: str | None
    client_request_id: str | None
    prompt: str
    model: str
    n: int
    micros: int
    status: int | str
    fault: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What was bought, and how the client identified its request."""

    request_id: str
    idempotency_key: str | None
    client_request_id: str | None
    prompt: str
    model: str
    n: int
    fault: str | None


@dataclass(slots=True)
class Hold:
    """Money reserved for a request in flight; 0 once it is charged or released."""

    micros: int


class Journal:
    """An append-only file of JSON lines; when `append` returns, the line is on disk.

    Opening the file drops an unfinished last line, because its `append` cannot have returned.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # In text mode, Windows would write two bytes per line end.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(path, flags, 0o644)
        content = path.read_bytes()
        self._durable_bytes = content.rfind(b"\n") + 1
        os.ftruncate(self._file, self._durable_bytes)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    def lines(self) -> list[bytes]:
        """Return every line on disk, without its newline."""
        with self._path.open("rb") as file:
            return file.read(self._durable_bytes).splitlines()

    async def append(self, row: object) -> None:
        """Write one line and wait until it is durable; lines that wait together share one fsync."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((orjson.dumps(row) + b"\n", written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting())
        await written

    async def close(self) -> None:
        """Finish pending writes and close the file."""
        if self._writer is not None:
            await self._writer
        os.close(self._file)

    async def _write_waiting(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await asyncio.to_thread(self._write_durably, b"".join(line for line, _ in group))
            except OSError as failure:
                error = failure
            for _, written in group:
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
        self._writer = None

    def _write_durably(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)
        self._durable_bytes += len(content)


class Account:
    """The account of the caller, with a balance in micro-dollars; None is unlimited.

    The balance is the amount given at start, plus every top-up, minus every charge; both are read
    back from the state directory. It never falls below zero, however many requests are in flight.
    Raises ValueError if a line read back is not JSON.
    """

    def __init__(self, state: Path, *, balance: int | None) -> None:
        self._bill = Journal(state / "bill.jsonl")
        self._topups = Journal(state / "topups.jsonl")
        self._balance = balance
        self._held = 0
        self._prompts: Counter[bytes] = Counter()
        self._billed_keys: set[str] = set()
        self._refunded: set[str] = set()
        self._next_seq = 1
        self.billed = 0
        self.billed_micros = 0
        left = Counter[str]()
        for line in self._bill.lines():
            row = orjson.loads(line)
            self._next_seq = row["seq"] + 1
            left[row["request_id"]] += row["micros"]
            if row["micros"] < 0 and left[row["request_id"]]:  # partially refunded
                self.billed_micros += row["micros"]
                continue
            self._count(
                row.get("kind", "charge"),  # bills written before refunds existed
                row["request_id"],
                row["prompt"],
                row["micros"],
                row["idempotency_key"],
            )
        if self._balance is not None:
            self._balance += sum(orjson.loads(line)["micros"] for line in self._topups.lines())

    @property
    def left(self) -> int | None:
        """Return the micro-dollars that are neither spent nor reserved; None without a limit."""
        if self._balance is None:
            return None
        return self._balance - self.billed_micros - self._held

    @property
    def prompts_billed_twice(self) -> int:
        """Return the number of distinct prompts charged more than once and not refunded."""
        return sum(count > 1 for count in self._prompts.values())

    def is_billed(self, idempotency_key: str) -> bool:
        """Return whether a request with this Idempotency-Key was charged."""
        return idempotency_key in self._billed_keys

    def bill(self) -> bytes:
        """Return the whole bill, read from disk, as a JSON list."""
        return b"[" + b",".join(self._bill.lines()) + b"]"

    def hold(self, micros: int) -> Hold:
        """Reserve money before the work. Raises the gateway's 403 if the balance is too low."""
        left = self.left
        if left is not None and left < micros:
            raise ApiError(
                403,
                f"用户额度不足, 剩余额度: ${Decimal(left).scaleb(-6):.6f}",
                code="insufficient_user_quota",
            )
        self._held += micros
        return Hold(micros)

    def release(self, hold: Hold) -> None:
        """Release what was reserved and not charged."""
        self._held -= hold.micros
        hold.micros = 0

    async def charge(self, hold: Hold, purchase: Purchase, *, status: int | str) -> None:
        """Turn the reservation into a charge, which is on disk when this returns."""
        await self._enter("charge", purchase, hold.micros, status)
        self.release(hold)

    async def refund(self, purchase: Purchase, micros: int) -> None:
        """Refund a purchase once; the refund is on disk when this returns."""
        if purchase.request_id not in self._refunded:
            await self._enter("refund", purchase, -micros, REFUNDED)

    async def give_back(self, request_id: str, micros: int | None) -> int:
        """Refund a charge later, in part or, with None, what is left of it; return the amount.

        Raises ValueError if nothing of such a charge is left.
        """
        rows = [row for row in orjson.loads(self.bill()) if row["request_id"] == request_id]
        left = sum(row["micros"] for row in rows)
        micros = left if micros is None else micros
        if not 0 < micros <= left:
            raise ValueError(f"{request_id} has {left} micros to refund, not {micros}")
        names = (field.name for field in fields(Purchase))
        purchase = Purchase(**{name: rows[0][name] for name in names})
        await self._enter("refund", purchase, -micros, REFUNDED, whole=micros == left)
        return micros

    async def _enter(
        self,
        kind: str,
        purchase: Purchase,
        micros: int,
        status: int | str,
        *,
        whole: bool = True,
    ) -> None:
        row = Charge(
            kind=kind,
            seq=self._next_seq,
            time=time.time(),
            request_id=purchase.request_id,
            idempotency_key=purchase.idempotency_key,
            client_request_id=purchase.client_request_id,
            prompt=purchase.prompt,
            model=purchase.model,
            n=purchase.n,
            micros=micros,
            status=status,
            fault=purchase.fault,
        )
        self._next_seq += 1
        await self._bill.append(row)
        if not whole:
            self.billed_micros += micros
            return
        self._count(kind, purchase.request_id, purchase.prompt, micros, purchase.idempotency_key)

    async def top_up(self, micros: int) -> None:
        """Add money. Raises ValueError if the balance is unlimited."""
        if self._balance is None:
            raise ValueError("the balance has no limit")
        await self._topups.append({"time": time.time(), "micros": micros})
        self._balance += micros

    async def close(self) -> None:
        await self._bill.close()
        await self._topups.close()

    def _count(
        self, kind: str, request_id: str, prompt: str, micros: int, idempotency_key: str | None
    ) -> None:
        entered = 1
        if kind == "refund":
            entered = -1
            self._refunded.add(request_id)
        self.billed += entered
        self.billed_micros += micros
        # A digest, because a million prompts of 32,000 characters would not fit in memory.
        self._prompts[hashlib.blake2b(prompt.encode(), digest_size=16).digest()] += entered
        if idempotency_key is not None:
            self._billed_keys.add(idempotency_key)
