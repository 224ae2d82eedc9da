"""The catalogue of faults, and which test shows what batchgen does about each.

``python -m tests.faults.table`` writes ``TABLE.md`` from the ``fault`` markers of the tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
TABLE: Final = Path(__file__).with_name("TABLE.md")

CHAPTERS: Final = {
    "N": "Network",
    "H": "HTTP status",
    "B": "Bodies and pictures",
    "D": "Disk",
    "Q": "Ledger",
    "M": "Manifest",
    "P": "Process",
    "S": "Secrets",
    "R": "Resources",
    "A": "Account",
}

FAULTS: Final = {
    "N01": "the host's name is not found",
    "N02": "the name server never answers",
    "N03": "the connection is refused or reset at once",
    "N04": "the host swallows the connection attempt",
    "N05": "a certificate that is expired, of another host, self-signed or of nobody we trust",
    "N06": "the TLS handshake stalls",
    "N07": "a proxy in the environment, a proxy that wants a password or refuses",
    "N08": "a reset while the request is being sent",
    "N09": "the connection ends behind the request, before any answer",
    "N10": "silence until the deadline",
    "N11": "the head of a 200, then silence",
    "N12": "an answer that drips byte by byte",
    "N13": "a body shorter than its length says",
    "N14": "a chunked body that breaks off",
    "N15": "a body without a length that breaks off",
    "N16": "a gzip body that breaks off",
    "N17": "a gzip bomb",
    "N18": "more bytes than the length says",
    "N19": "lengths that contradict each other or are no numbers",
    "N20": "300 KB of headers",
    "N21": "endless provisional answers",
    "N22": "an idle connection that the server closes as it is used again",
    "N23": "HTTP/2 refusals and resets",
    "N24": "301, 302 or 303 for a paid request",
    "N25": "307 or 308 for a paid request",
    "N26": "a download that redirects in a circle or too often",
    "N27": "a download that redirects from https to http",
    "N28": "a picture at an address that is not public",
    "N29": "a name that resolves to another address the second time",
    "N30": "an address that is neither http nor https; a picture inside its address",
    "N31": "an address with a password, control characters, 64 KB or no such port",
    "N32": "a server that ignores the range, or sends another, or another version",
    "N33": "416 as a download goes on",
    "N34": "no connection free in the pool",
    "N35": "IPv6 broken, IPv4 fine",
    "N36": "the network is gone for minutes",
    "N37": "something on the port that does not speak HTTP",
    "N38": "a captive portal answers everything",
    "H01": "400, a parameter is wrong",
    "H02": "400, refused by moderation",
    "H03": "401 at once, or after successes",
    "H04": "402",
    "H05": "403: no quota, a model that is not allowed, or a firewall's page",
    "H06": "404: no such model, or no such path",
    "H07": "405, 406, 415, 501",
    "H08": "408",
    "H09": "409 of a provider without idempotency keys",
    "H10": "409 of a provider with idempotency keys",
    "H11": "413",
    "H12": "422",
    "H13": "425",
    "H14": "429 that does not say how long",
    "H15": "429 with seconds to wait",
    "H16": "429 with a date to wait for",
    "H17": "the other spellings of a wait",
    "H18": "waits that make no sense",
    "H19": "waits of an hour, a day, for ever",
    "H20": "429 that means the money is gone",
    "H21": "500 in the gateway's own envelope",
    "H22": "500 as a page or empty",
    "H23": "502 with and without the envelope",
    "H24": "503 that says when to come back",
    "H25": "504, whatever it says of itself",
    "H26": "520, 522, 524",
    "H27": "521, 523, 525, 526",
    "H28": "529",
    "H29": "an event stream that nobody asked for",
    "H30": "201 or 202 with a task",
    "H31": "204, or a 200 without a body",
    "H32": "299, 418, 451, 599, 999",
    "H33": "half an hour of 503",
    "H34": "every second answer a 500",
    "H35": "a header that says whether to ask again",
    "B01": "200 with a page",
    "B02": "200 with an error",
    "B03": "200 with JSON that is cut or broken",
    "B04": "JSON of another shape",
    "B05": "no pictures in the list",
    "B06": "fewer pictures than asked for",
    "B07": "more pictures than asked for",
    "B08": "an item with nothing, neither or both",
    "B09": "a picture that is gone at once",
    "B10": "a picture host that fails for a while",
    "B11": "a page, an error or nothing in a picture's place",
    "B12": "a content type that lies",
    "B13": "bytes that are no picture",
    "B14": "a picture cut at every percent",
    "B15": "a PNG without its last bytes",
    "B16": "a picture that would fill the memory",
    "B17": "formats that are not taken",
    "B18": "a body beyond the cap",
    "B19": "base64 in other spellings",
    "B20": "base64 with what is none",
    "B21": "a data address in a picture's field",
    "B22": "one address for two pictures",
    "B23": "one picture for two jobs",
    "B24": "another size than asked for",
    "B25": "JSON with doubles, NaN, huge numbers and depth",
    "B26": "a byte order mark, UTF-16, broken UTF-8",
    "B27": "escapes, line ends and a megabyte in an error",
    "B28": "an error that repeats the key",
    "B29": "usage that makes no sense",
    "B30": "another model than asked for",
    "D01": "the disk is full while a picture is written",
    "D02": "too little room at the start",
    "D03": "the quota or the inodes are used up",
    "D04": "no right to write",
    "D05": "the disk turns read-only",
    "D06": "input/output errors at each step of writing",
    "D07": "a name that is too long",
    "D08": "a path that is too long",
    "D09": "two jobs, one name",
    "D10": "names that differ in case or composition only",
    "D11": "values that would leave the output folder",
    "D12": "symbolic links inside the output folder",
    "D13": "names that Windows does not take",
    "D14": "names that begin with a dash or a dot",
    "D15": "something in the picture's place",
    "D16": "a picture deleted or changed afterwards",
    "D17": "what a killed run left",
    "D18": "the output folder vanishes",
    "D19": "temporary files on another file system",
    "D20": "power loss",
    "D21": "a ledger on a network file system",
    "D22": "umasks",
    "Q01": "another program holds the ledger locked",
    "Q02": "two runs of one ledger",
    "Q03": "a lock left by a killed run",
    "Q04": "a damaged ledger",
    "Q05": "an empty file or none of SQLite",
    "Q06": "a ledger that can't be written",
    "Q07": "a ledger of an older version",
    "Q08": "a ledger of a newer version",
    "Q09": "no room at any commit",
    "Q10": "input/output errors of the ledger",
    "Q11": "the ledger is deleted or replaced during a run",
    "Q12": "the journal is deleted between runs",
    "Q13": "killed while the ledger is made or changed",
    "Q14": "a reading transaction that turns to writing",
    "Q15": "versions of SQLite with a race in their log",
    "Q16": "a status that is asked for hours",
    "Q17": "the clock goes back",
    "Q18": "the manifest is edited between runs",
    "Q19": "a connection used behind a fork",
    "Q20": "100,000 jobs",
    "M01": "YAML that is none",
    "M02": "an alias bomb",
    "M03": "a merge bomb",
    "M04": "100,000 levels",
    "M05": "tags of Python and others",
    "M06": "a key twice",
    "M07": "a key that is unknown",
    "M08": "a value of another type",
    "M09": "text that YAML takes for something else",
    "M10": "keys that are no text",
    "M11": "empty, a scalar, a list, several documents",
    "M12": "50 MiB or a million jobs",
    "M13": "other encodings",
    "M14": "numbers beyond all bounds",
    "M15": "an id twice, a job twice",
    "M16": "counts and sizes beyond all bounds",
    "M17": "dearer than the budget",
    "M18": "a key inside the manifest",
    "M19": "templates that reach for more than fields",
    "M20": "a variable that is not there",
    "M21": "a folder, a pipe, a device, a file nobody may read",
    "M22": "the manifest changes during the run",
    "M23": "prompts that are huge or strange",
    "P01": "Ctrl-C",
    "P02": "Ctrl-C twice",
    "P03": "SIGTERM",
    "P04": "SIGHUP",
    "P05": "SIGKILL at every system call",
    "P06": "SIGKILL at random, eight in flight",
    "P07": "SIGKILL during recovery, three in a row",
    "P08": "out of memory",
    "P09": "power loss",
    "P10": "stopped or asleep for hours",
    "P11": "the clock jumps",
    "P12": "a bug in one worker",
    "P13": "cancelled between the last byte and the commit",
    "P14": "standard output closed, blocked or no terminal",
    "P15": "the next night starts before this one ends",
    "P16": "no home, no folder, another language, another user",
    "P17": "a thread that still writes at the end",
    "P18": "the whole process group is killed",
    "S01": "exceptions at the finest log level",
    "S02": "the HTTP libraries' own logs",
    "S03": "signed addresses",
    "S04": "the ledger and its free pages",
    "S05": "sidecars, reports, settings",
    "S06": "a key on the command line",
    "S07": "a file with the key that others can read",
    "S08": "a redirect to another host",
    "S09": "the request for a picture",
    "S10": "plain http, or a password in the address",
    "S11": "netrc, proxies and TLS settings of the environment",
    "S12": "a server that repeats the key",
    "S13": "core dumps and fault handlers",
    "S14": "a key with line ends, blanks or strange letters",
    "S15": "prompts in the log",
    "S16": "certificates unchecked",
    "R01": "64 open files allowed",
    "R02": "no file can be opened during a run",
    "R03": "100,000 jobs in memory",
    "R04": "the event loop with 4k pictures",
    "R05": "32 MiB answers, 16 at once",
    "R06": "a disk that takes half a second to sync",
    "R07": "all threads busy",
    "R08": "logs that grow",
    "R09": "10,000 pictures in one run",
    "R10": "a call that blocks the event loop",
    "R11": "10,000 cancelled requests",
    "R12": "a fifth of a processor",
    "A01": "the money ends in the middle",
    "A02": "the key is revoked in the middle",
    "A03": "the price changes in the middle",
    "A04": "the model is gone",
    "A05": "the rate limit falls to one a minute",
    "A06": "the budget, with eight in flight",
    "A07": "the balance is below the quote",
    "A08": "the key is used elsewhere",
    "A09": "a log that is down, wrong, short or late",
    "A10": "a log that shows a row twice",
    "A11": "a charge 40 minutes later",
    "A12": "a fee for a refusal",
    "A13": "charged for more pictures than came",
    "A14": "an old answer for a new request",
}
"""What goes wrong, by its id."""

NOT_AUTOMATED: Final[dict[str, str]] = {
    "H10": "no provider that batchgen knows promises to honour a key; every 409 is as in H09",
    "A14": "nothing compares ids or pictures between jobs; each request has a key of its own",
}
"""Ids without a test, and why."""


def shown() -> dict[str, list[str]]:
    """The tests of each id, as ``file::name``."""
    tests: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, fault in _markers(ast.parse(path.read_text("utf-8"))):
            tests.setdefault(fault, []).append(f"{path.relative_to(TESTS).as_posix()}::{name}")
    return {fault: list(dict.fromkeys(names)) for fault, names in tests.items()}


def _markers(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test"
        ):
            for decorator in node.decorator_list:
                for call in ast.walk(decorator):
                    if isinstance(call, ast.Call) and _is_fault(call.func):
                        for argument in call.args:
                            yield node.name, ast.literal_eval(argument)


def _is_fault(func: ast.expr) -> bool:
    return isinstance(func, ast.Attribute) and func.attr == "fault"


def markdown() -> str:
    """The whole table."""
    tests = shown()
    automated = sum(fault in tests for fault in FAULTS)
    lines = [
        "# Faults and their tests",
        "",
        f"{len(FAULTS)} faults, {automated} of them with tests.",
        "Written by `python -m tests.faults.table` from the markers of the tests;",
        "`python -m pytest --fault N24` runs those of one row.",
    ]
    for letter, chapter in CHAPTERS.items():
        lines += ["", f"## {chapter} ({letter})", "", "| id | fault | shown by |", "|---|---|---|"]
        for fault, text in FAULTS.items():
            if fault.startswith(letter):
                names = [f"`{name}`" for name in tests.get(fault, ())]
                shown_by = ", ".join(names) or f"not: {NOT_AUTOMATED.get(fault, 'nothing yet')}"
                lines.append(f"| {fault} | {text} | {shown_by} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(markdown(), "utf-8")
