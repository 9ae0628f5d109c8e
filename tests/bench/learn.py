"""How well the defaults learn: trains on a data set with several seeds and prints, per action, AUC and MAE on
the test part (mean, and min .. max over the seeds) beside the four plain references, as a Markdown table.

    learn.py SLUICE DATA FOLDER [--seeds 5] [flags for `sluice train`...]

FOLDER gets a job a seed and is left there; a seed whose job is finished is not trained again.
"""
import argparse
import json
import os
import subprocess
import sys


def run(*words):
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(words)}: exit code {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def evaluation(path):
    """The last line: the test part, read as the job says."""
    with open(path) as lines:
        return json.loads(lines.readlines()[-1])


def references(sluice, data, job):
    """AUC by action of user, item, product, history, measured by `sluice eval` on the same samples."""
    text = run(sluice, "eval", "--snapshot", f"{job}/run/snapshot", "--data", data, "--read", "greedy", "--json")
    return next(o for o in map(json.loads, text.splitlines()) if o["read"] == "references")["auc"]


def spread(values, digits):
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser()
    for name in ("sluice", "data", "folder"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=5)
    options, flags = parser.parse_known_args()
    runs = []
    for seed in range(1, options.seeds + 1):
        job = f"{options.folder}/seed-{seed}"
        if not os.path.exists(f"{job}/done"):
            run(options.sluice, "train", "--data", options.data, "--out", job, "--seed", str(seed), *flags)
            open(f"{job}/done", "w").close()
        runs.append(evaluation(f"{job}/run/eval.jsonl")["actions"])
    plain = references(options.sluice, options.data, f"{options.folder}/seed-1")
    print("| action | positives | AUC | best reference | margin | user | item | product | history | MAE |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for action, figures in runs[0].items():
        mae = spread([run[action]["time_mae"] for run in runs], 4)
        if figures["auc"] is None:
            print(f"| {action} | {figures['positives']} | - | - | - | - | - | - | - | {mae} |")
            continue
        aucs = [run[action]["auc"] for run in runs]
        best = max(plain[action].values())
        four = " | ".join(f"{plain[action][name]:.4f}" for name in ("user", "item", "product", "history"))
        print(f"| {action} | {figures['positives']} | {spread(aucs, 4)} | {best:.4f} | "
              f"{sum(aucs) / len(aucs) - best:+.4f} | {four} | {mae} |")


if __name__ == "__main__":
    main()
