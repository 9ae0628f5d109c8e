#!/usr/bin/env python3
"""The layer lint: includes point downward only, and third-party headers stay at home.

    layers.py TREE          checks a tree
    layers.py --self-test   plants one fault of each kind and expects it to be found

The order of LAYERS is the order of the add_subdirectory lines in CMakeLists.txt, and is checked against it.
"""
import pathlib
import re
import sys
import tempfile

# folder -> the project folders it may include from, besides itself
LAYERS = {
    "cluster": set(),
    "model": {"cluster"},
    "embeddings": {"cluster"},
    "ps": {"cluster", "model", "embeddings"},
    "worker": {"cluster", "model", "embeddings", "ps"},
    "sched": {"cluster", "model", "embeddings", "ps", "worker"},
}
# third-party header (prefix) -> the folders where it is at home
HOMES = {
    "zmq": {"cluster"},
    "msgpack": {"cluster"},
    "yaml.h": {"cluster"},
    "xxhash": {"cluster"},
    "zstd": {"cluster"},
    "zlib": {"cluster"},
    "cblas": {"model"},
    "lmdb": {"embeddings"},
    "mpi.h": {"worker"},
    "csv.h": {"worker"},
    "microhttpd": {"worker", "sched"},
    "jansson": {"cluster", "embeddings", "ps", "worker", "sched"},
    "simgrid": {"sched"},
    "protobuf-c": {"worker"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def check_file(tree, path):
    folder = path.relative_to(tree).parts[0]
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(2)
        place = f"{path.relative_to(tree)}:{number}"
        top = target.split("/")[0]
        if match.group(1) == '"':
            if "/" not in target:
                yield f'{place}: "{target}" is not an address from the top of the tree'
            elif top != folder and top not in LAYERS[folder]:
                yield f"{place}: {folder}/ may not include {target}"
            elif top != folder and target.endswith("_internal.h"):
                yield f"{place}: {target} is internal to {top}/"
            continue
        for header, homes in HOMES.items():
            if target.startswith(header) and folder not in homes:
                yield f"{place}: <{target}> is at home in {', '.join(sorted(homes))}, not in {folder}/"
        if top in LAYERS:
            yield f"{place}: <{target}> is a header of the project, use quotes"


def check(tree):
    order = re.findall(r"^add_subdirectory\((\w+)\)", (tree / "CMakeLists.txt").read_text(), re.M)
    if order != list(LAYERS):
        yield f"CMakeLists.txt: the layers are {order}, expected {list(LAYERS)}"
    for folder in LAYERS:
        for path in sorted((tree / folder).glob("*.[ch]")):
            yield from check_file(tree, path)


def self_test():
    faults = {
        "cluster/x.c": '#include "ps/client.h"\n',
        "model/x.h": "#include <zmq.h>\n",
        "embeddings/x.c": '#include "model/batch.h"\n',
        "ps/x.c": "#include <mpi.h>\n",
        "worker/x.c": '#include "batch.h"\n',
        "sched/x.c": '#include "worker/y_internal.h"\n',
    }
    with tempfile.TemporaryDirectory() as name:
        tree = pathlib.Path(name)
        for folder in LAYERS:
            (tree / folder).mkdir()
        (tree / "CMakeLists.txt").write_text("".join(f"add_subdirectory({f})\n" for f in LAYERS))
        if list(check(tree)):
            return "an empty tree has findings"
        for path, text in faults.items():
            (tree / path).write_text(text)
            if len(list(check(tree))) != 1:
                return f"a planted fault was not found: {path}: {text.strip()}"
            (tree / path).unlink()
    return None


def main():
    if sys.argv[1:] == ["--self-test"]:
        problem = self_test()
        print(problem or "every planted fault is found")
        return 1 if problem else 0
    findings = list(check(pathlib.Path(sys.argv[1]).resolve()))
    print("\n".join(findings) or "every include points downward")
    return 1 if findings else 0


sys.exit(main())
