"""A small log, prepared, trained, exported and scored by the real program; then every score recomputed by
check_scores.py. Usage: scores_e2e.py PROGRAM FOLDER. Exits 77 with a sentence where numpy, lmdb or xxhash
are missing."""
import json
import os
import random
import shutil
import subprocess
import sys

program, folder = sys.argv[1], sys.argv[2]
here = os.path.dirname(os.path.abspath(__file__))


def run(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode == 77:
        print(result.stdout, end="")
        sys.exit(77)
    if result.returncode:
        print(" ".join(arguments), "failed:", result.returncode)
        print(result.stdout[-4000:], result.stderr[-4000:])
        sys.exit(1)
    return result.stdout


probe = subprocess.run([sys.executable, "-c", "import numpy, lmdb, xxhash"], capture_output=True)
if probe.returncode:
    print("skipped: this python3 lacks numpy, lmdb or xxhash")
    sys.exit(77)

shutil.rmtree(folder, ignore_errors=True)
os.makedirs(folder)
draw = random.Random(3)
items = {f"i{n}" if n % 3 else str(n - 40): (f"kind {n % 5}", n / 7) for n in range(80)}
users = {f"u{n}" if n % 2 else str(10**18 + n): f"land {n % 4}" for n in range(40)}
with open(f"{folder}/log.csv", "w") as log, open(f"{folder}/events.jsonl", "w") as events:
    log.write("user,item,what,at,kind,price,land\n")
    for n in range(3000):
        user, item = draw.choice(list(users)), draw.choice(list(items))
        what, at = draw.choice(["view", "like", "keep"]), 1600000000 + n * 2 + draw.randrange(3)
        kind, price = items[item]
        log.write(f"{user},{item},{what},{at},{kind},{price},{users[user]}\n")
        events.write(json.dumps({"user": user, "item": item, "action": what, "time": at,
                                 "user_values": [users[user]], "item_values": [kind, price]}) + "\n")
with open(f"{folder}/schema.yaml", "w") as schema:
    schema.write("name: small\nuser: user\nitem: item\naction: what\ntime: at\ntime_format: unix\n"
                 "actions: [start, view, like, keep]\nuser_features: [land]\n"
                 "item_features:\n  - kind\n  - {name: price, kind: numeric}\n")
with open(f"{folder}/job.yaml", "w") as job:
    job.write(f"data: {folder}/data\nout: {folder}/out\nservers: 1\nshards: 2\nworkers: 1\nwidth: 16\n"
              "heads: 4\nhistory: 12\nuser_dim: 8\nitem_dim: 8\nfeature_dim: 4\nbatch: 64\nepochs: 2\n"
              "dense_learning_rate: 0.01\nsparse_learning_rate: 0.01\n")
run(program, "prepare", "--schema", f"{folder}/schema.yaml", f"{folder}/log.csv", "--out", f"{folder}/data")
run(program, "train", f"{folder}/job.yaml")
run(program, "export", "--snapshot", f"{folder}/out/run/snapshot", "--out", f"{folder}/export")
for read in ("greedy", "exact"):
    run(program, "score", "--export", f"{folder}/export", "--data", f"{folder}/data", "--read", read,
        "--out", f"{folder}/{read}.jsonl")
    print(run(sys.executable, f"{here}/check_scores.py", "--export", f"{folder}/export", "--scores",
              f"{folder}/{read}.jsonl", "--events", f"{folder}/events.jsonl", "--read", read), end="")
shutil.rmtree(folder)
