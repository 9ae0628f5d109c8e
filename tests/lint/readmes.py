"""What the READMEs name is there: files, tests, verbs.

usage: readmes.py TREE, or --self-test

In backticks, in every README.md:
- a path with an ending that sources have (`ps/client.h`, `driver.h`, `state_{a,b}.c`) stands at the top, in
  the README's folder, in a folder that the same line names, or, in tests/, as a test's file;
- `folder.module` of a folder with tests is a CTest: tests/<folder>/test_<module>.c or a name in CMake;
- `sluice VERB` is a verb of sched/verbs.h, here and in indented commands.
"""
import os
import re
import sys

ENDINGS = r"(?:h|c|py|sh|md)"
FOLDERS = ("cluster", "model", "embeddings", "ps", "worker", "sched", "cluster_e2e", "lint", "fuzz")


def expand(word):
    match = re.match(r"(.*?)\{([^}]*)\}(.*)", word)
    if not match:
        return [word]
    return [w for part in match[2].split(",") for w in expand(match[1] + part + match[3])]


class Tree:
    def __init__(self, files, verbs, tests):
        self.files, self.verbs, self.tests = set(files), set(verbs), set(tests)

    def has_file(self, folder, word, line):
        places = [folder, ""] + re.findall(r"`([a-z_0-9/]+)/`", line)
        if folder == "tests" or word.startswith("test_"):
            places += ["tests/" + f for f in FOLDERS]
        return any(os.path.normpath(os.path.join(p, word)) in self.files for p in places)

    def has_test(self, word):
        return word in self.tests or any(t.startswith(word[:-1]) for t in self.tests if word.endswith("*"))

    def faults(self, path, text):
        folder = os.path.dirname(path)
        for number, line in enumerate(text.split("\n"), 1):
            words = re.findall(r"`([^`]+)`", line)
            for verb in re.findall(r"(?:`|^    )sluice ([a-z]+)", line):
                if verb not in self.verbs:
                    yield f"{path}:{number}: sluice has no verb {verb}"
            for word in (w for found in words for w in expand(found)):
                if re.fullmatch(rf"[\w./-]+\.{ENDINGS}", word):
                    if not self.has_file(folder, word, line):
                        yield f"{path}:{number}: {word} is not there"
                elif re.fullmatch(rf"(?:{'|'.join(FOLDERS)})\.(?:[a-z][a-z_0-9]*|\*)", word):
                    if not self.has_test(word):
                        yield f"{path}:{number}: there is no test {word}"


def read_tree(root):
    files, tests = [], []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in ("build", ".git", "sluice-run")]
        files += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    for path in files:
        match = re.fullmatch(r"tests/(\w+)/test_(\w+)\.c", path)
        if match:
            tests.append(f"{match[1]}.{match[2]}")
        if path.endswith("CMakeLists.txt"):
            text = open(os.path.join(root, path), encoding="utf-8").read()
            tests += re.findall(r"NAME ([\w.]+)", text)
    tests += [f"fuzz.{p[11:-2]}" for p in files if re.fullmatch(r"tests/fuzz/fuzz_\w+\.c", p)]
    verbs = open(os.path.join(root, "sched/verbs.h"), encoding="utf-8").read()
    return Tree(files, re.findall(r"X\(([a-z]+)\)", verbs), tests)


def self_test():
    tree = Tree(["ps/a.h", "ps/b_x.c", "ps/b_y.c", "tests/ps/test_a.c"], ["train"], ["ps.a"])
    good = "`a.h` `ps/a.h` `b_{x,y}.c` `ps.a` `ps.*` `sluice train`\n    sluice train JOB\n"
    bad = "`c.h`\n`ps.b`\n`sluice tain`\n    sluice go\n`b_{x,z}.c`\n"
    assert not list(tree.faults("ps/README.md", good)), list(tree.faults("ps/README.md", good))
    assert not list(tree.faults("README.md", "| `ps/` | `a.h` |\n"))
    assert len(list(tree.faults("ps/README.md", bad))) == 5, list(tree.faults("ps/README.md", bad))


if __name__ == "__main__":
    if sys.argv[1] == "--self-test":
        self_test()
        sys.exit(0)
    tree = read_tree(sys.argv[1])
    found = []
    for name in sorted(tree.files):
        if os.path.basename(name) == "README.md":
            with open(os.path.join(sys.argv[1], name), encoding="utf-8") as file:
                found += tree.faults(name, file.read())
    print("\n".join(found) if found else "what the READMEs name is there")
    sys.exit(1 if found else 0)
