#!/usr/bin/env python3
"""The symbol lint: every external symbol of a folder's library carries the folder's prefix, and no folder
keeps writable data but the ones named here.

    symbols.py NM FOLDER=LIBRARY...
"""
import re
import subprocess
import sys

PREFIXES = {
    "cluster": "clu_",
    "model": "mdl_",
    "embeddings": "emb_",
    "ps": "psv_",
    "worker": "wrk_",
    "sched": "schd_",
}
# the one mutable global of the system: the log's level and identity
WRITABLE = {"cluster": {"settings"}}
# what compilers and sanitizers add
GENERATED = re.compile(r"^(__|_GLOBAL_|\.|asan\.|__asan|__tsan|__ubsan|completed\.|DW\.)")


def symbols(nm, library):
    text = subprocess.run([nm, "--defined-only", library], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and len(fields[1]) == 1:
            yield fields[1], fields[2]


def check(nm, folder, library):
    prefix = PREFIXES[folder]
    for kind, name in symbols(nm, library):
        if GENERATED.match(name):
            continue
        if kind.isupper() and not name.startswith(prefix):
            yield f"{folder}: external symbol {name} does not start with {prefix}"
        plain = name.split(".")[0]
        if kind in "dDbBC" and plain not in WRITABLE.get(folder, ()) and not plain.endswith("_once"):
            yield f"{folder}: {name} is writable data; there are no mutable globals"


def main():
    findings = []
    for pair in sys.argv[2:]:
        folder, library = pair.split("=", 1)
        findings += check(sys.argv[1], folder, library)
    print("\n".join(findings) or "every symbol carries its folder's prefix")
    return 1 if findings else 0


sys.exit(main())
