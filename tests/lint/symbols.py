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
    """(class, name, section) of every symbol defined in a library."""
    command = [nm, "--defined-only", "--format=sysv", library]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 7 and len(fields[2]) == 1:
            yield fields[2], fields[0], fields[6]


def check(nm, folder, library):
    prefix = PREFIXES[folder]
    for kind, name, section in symbols(nm, library):
        if GENERATED.match(name):
            continue
        if kind.isupper() and not name.startswith(prefix):
            yield f"{folder}: external symbol {name} does not start with {prefix}"
        if section.startswith((".data.rel.ro", ".rodata")):
            continue  # constant, though the loader must fix addresses in it
        plain = name.split(".")[0]
        if kind in "dDbBC" and plain not in WRITABLE.get(folder, ()):
            yield f"{folder}: {name} is writable data; there are no mutable globals"


def main():
    findings = []
    for pair in sys.argv[2:]:
        folder, library = pair.split("=", 1)
        findings += check(sys.argv[1], folder, library)
    print("\n".join(findings) or "every symbol carries its folder's prefix")
    return 1 if findings else 0


sys.exit(main())
