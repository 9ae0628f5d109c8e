"""Recomputes the lines of `sluice score` from nothing but an export, the log and the two pages that state
the model and the data: an independent implementation, in numpy, slow and plain.

    check_scores.py --export DIR --scores FILE.jsonl --events EVENTS.jsonl --read greedy|exact [--limit N]

EVENTS.jsonl: the log, one event a line: {"user", "item", "action", "time" (s), "user_values", "item_values"},
values being the further columns in the manifest's order (text for sparse ones, numbers for numeric ones).
Checked: every line's user, item, time and label; for --limit lines spread over the file, P and T of every
action, and the sequence. Tolerance: 1e-4 for 98 of 100 numbers, 5e-3 for every one (a generated time is fed
back through sin(8 pi T), several times in a row, which multiplies the rounding of single precision). Exits 77 with a sentence where numpy, lmdb or xxhash are missing.
"""
import argparse
import json
import math
import struct
import sys

try:
    import lmdb
    import numpy as np
    import xxhash
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed for this python3")
    sys.exit(77)

TOLERANCE = 1e-4
WORST_TOLERANCE = 5e-3
MASK = (1 << 64) - 1


# ---- ids, keys, initial values ----

def key_of(text):
    try:
        number = int(text)
        if str(number) == text and -(1 << 63) <= number < (1 << 64):
            return number & MASK
    except ValueError:
        pass
    return xxhash.xxh3_64_intdigest(text.encode())


def mix(x):
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def initial_row(table, key):
    seed = table["seed"] & MASK
    h = mix((mix((seed + xxhash.xxh3_64_intdigest(table["name"].encode())) & MASK) + key) & MASK)
    lanes = [mix((h + (i + 1) * 0x9E3779B97F4A7C15) & MASK) >> 40 for i in range(table["dim"])]
    return np.array([(v * 2.0**-23 - 1) * table["init_range"] for v in lanes])


# ---- the export ----

def read_safetensors(path):
    data = open(path, "rb").read()
    (n,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(data[8 + n + begin : 8 + n + end], "<f4").astype(np.float64)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


class Export:
    def __init__(self, folder):
        self.manifest = json.load(open(f"{folder}/manifest.json"))
        self.model = self.manifest["model"]
        self.tensors = read_safetensors(f"{folder}/dense.safetensors")
        self.tables = {table["name"]: table for table in self.manifest["tables"]}
        self.rows = lmdb.open(f"{folder}/rows", readonly=True, lock=False, max_dbs=64)
        self.databases = {
            name: self.rows.open_db(name.encode(), integerkey=True, create=False)
            for name in self.tables
        }
        for name, table in self.tables.items():
            with self.rows.begin() as txn:
                count = txn.stat(self.databases[name])["entries"]
            assert count == table["count"], f"table {name}: {count} rows, the manifest says {table['count']}"

    def row(self, name, key):
        with self.rows.begin() as txn:
            value = txn.get(struct.pack("<Q", key), db=self.databases[name])
        if value is None:
            return initial_row(self.tables[name], key)
        return np.frombuffer(value, "<f4").astype(np.float64)

    def features(self, columns, identity, values):
        parts = []
        for column, value in zip(columns, [identity] + list(values)):
            if column["kind"] == "numeric":
                parts.append(np.array([float(np.float32(value))]))
            else:
                parts.append(self.row(column["table"], key_of(str(value))))
            assert len(parts[-1]) == column["dim"]
        return np.concatenate(parts)


# ---- the model ----

def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def phi(times):
    t = np.clip(np.asarray(times, float), 0, 4)[:, None]
    powers = np.pi * 2.0 ** np.arange(4)[None, :]
    return np.concatenate([t, np.sin(t * powers), np.cos(t * powers)], axis=1)


class A2Gen:
    def __init__(self, export):
        self.t = export.tensors
        self.heads = export.model["heads"]
        self.width = export.model["width"]
        self.m = export.model["n_actions"]

    def tokens(self, which, actions, times):
        t = lambda name: self.t[f"token_{which}.{name}"]
        return t("E")[actions] + phi(times) @ t("W_t") + t("b_t") + t("P")[: len(actions)]

    def cam(self, which, s, c, causal=False, rho=None):
        t = lambda name: self.t[f"cam_{which}.{name}"]
        d_h = self.width // self.heads
        x = s @ t("W_x") + t("b_x")
        u = x + c @ t("W_c")
        q, k, v = u @ t("W_q") + t("b_q"), x @ t("W_k"), x @ t("W_v") + t("b_v")
        g = self.heads * softmax(c @ t("W_g") + t("b_g"))
        heads = []
        for n in range(self.heads):
            lanes = slice(n * d_h, (n + 1) * d_h)
            score = q[:, lanes] @ k[:, lanes].T / math.sqrt(d_h)
            if rho is not None:
                score = score + rho[n][None, :]
            if causal:
                score = np.where(np.tril(np.ones_like(score)) > 0, score, -np.inf)
            heads.append(g[n] * softmax(score) @ v[:, lanes])
        o = np.concatenate(heads, axis=1) @ t("W_o") + t("b_o")
        r = layer_norm(u + o, t("ln1_w"), t("ln1_b"))
        hidden = np.maximum(r @ t("W_1") + t("b_1"), 0)
        return layer_norm(r + hidden @ t("W_2") + t("b_2"), t("ln2_w"), t("ln2_b"))

    def history(self, items, f_target):
        """items: oldest first, (F_x, actions, times)."""
        if not items:
            return np.zeros(self.width)
        z = []
        for f_x, actions, times in items:
            y = self.cam("act", self.tokens("hist", actions, times), f_x)
            z.append(np.concatenate([y.mean(axis=0), f_x]))
        recency = np.arange(len(items))[::-1]
        rho = self.t["cam_item.Rho"][:, recency]
        return self.cam("item", np.array(z), f_target, rho=rho).mean(axis=0)

    def next(self, context, actions, times):
        """P and That of the token after the given ones."""
        t = lambda name: self.t[f"decision.{name}"]
        y = self.cam("gen", self.tokens("gen", actions, times), context, causal=True)[-1]
        p = softmax(np.maximum(y @ t("W_c1") + t("b_c1"), 0) @ t("W_c2") + t("b_c2"))
        that = np.maximum(y @ t("W_t1") + t("b_t1"), 0) @ t("w_t2").reshape(-1) + t("b_t2").reshape(-1)[0]
        return p, float(that)

    def greedy(self, context):
        actions, times, ps, ts = [1], [0.0], [], []
        for _ in range(self.m - 1):
            p, that = self.next(context, actions, times)
            ps.append(p)
            ts.append(that)
            best = int(p.argmax())
            actions.append(best)
            times.append(that if best else 0.0)
        ps, ts = np.array(ps), np.array(ts)
        sequence = []
        for action, time in zip(actions, times):
            if action == 0:
                break
            sequence.append((action, time))
        return ps.max(axis=0), (ps * ts[:, None]).sum(axis=0) / ps.sum(axis=0), sequence

    def exact(self, context):
        p_of, t_of = np.zeros(self.m + 1), np.zeros(self.m + 1)
        best = [0.0, None]

        def end(actions, times, probability):
            for action, time in zip(actions, times):
                p_of[action] += probability
                t_of[action] += probability * time
            if probability > best[0]:
                best[:] = [probability, list(zip(actions, times))]

        def walk(actions, times, probability):
            if len(actions) == self.m:
                end(actions, times, probability)
                return
            p, that = self.next(context, actions, times)
            p = p.copy()
            p[actions] = 0
            p /= p.sum()
            end(actions, times, probability * p[0])
            for a in range(1, self.m + 1):
                if p[a] > 0:
                    walk(actions + [a], times + [that], probability * p[a])

        walk([1], [0.0], 1.0)
        return p_of, t_of / np.maximum(p_of, 1e-30), best[1]


# ---- the data ----

def build_pairs(path, actions, unit=60.0, scale=10.0):
    first = {}
    for line in open(path):
        event = json.loads(line)
        pair = first.setdefault((event["user"], event["item"]), {"times": {}, "event": event})
        times = pair["times"]
        times[event["action"]] = min(event["time"], times.get(event["action"], event["time"]))
    rank = {action: i for i, action in enumerate(actions)}
    users = {}
    for (user, item), pair in first.items():
        begin = min(pair["times"].values())
        tokens = sorted(pair["times"].items(), key=lambda x: (x[1], rank[x[0]]))
        transform = lambda time: math.log1p((time - begin) / unit) / scale
        if "start" not in pair["times"]:
            tokens = [("start", begin)] + tokens
        sample = {
            "user": user, "item": item, "begin": begin, "event": pair["event"],
            "tokens": [(rank[a] + 1, time, transform(time)) for a, time in tokens],
        }
        users.setdefault(user, []).append(sample)
    for samples in users.values():
        samples.sort(key=lambda s: (s["begin"], key_of(s["item"])))
    return users


def rates(n, counts):
    return [math.log1p(n) / 2] + [(math.log((k + 0.25) / (n + 5)) + 3) / 2 for k in counts]


def item_counts(events, begin, actions):
    """The columns of prepare's --item-counts: age, events and actions of the item before a pair's second."""
    past = [(time, action) for time, action in events if time < begin]
    age = begin - min(time for time, _ in past) if past else 0
    return [math.log1p(age / 60) / 10] + rates(len(past), [sum(a == x for _, x in past) for a in actions[1:]])


def known(sample, before):
    return [(a, t) for a, time, t in sample["tokens"] if time < before]


def close(a, b, tolerance=TOLERANCE):
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def main():
    parser = argparse.ArgumentParser()
    for name in ("export", "scores", "events", "read"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--split", type=float, default=0.9)
    options = parser.parse_args()
    export = Export(options.export)
    model, manifest = A2Gen(export), export.manifest
    names = manifest["actions"]
    users = build_pairs(options.events, names)
    counted = any(column["name"] == "item_age" for column in manifest["item_columns"])
    of_item = {}
    for line in open(options.events):
        event = json.loads(line)
        of_item.setdefault(event["item"], []).append((event["time"], event["action"]))
    everything = sorted((s for samples in users.values() for s in samples),
                        key=lambda s: (s["begin"], key_of(s["user"]), key_of(s["item"])))
    split_time = everything[int(options.split * len(everything))]["begin"]
    expected = [s for s in everything if s["begin"] >= split_time]
    lines = [json.loads(line) for line in open(options.scores)]
    assert len(lines) == len(expected), f"{len(lines)} lines, expected {len(expected)}"
    stride = max(1, len(lines) // options.limit)
    n_checked, n_history, off = 0, 0, []
    for i, (line, sample) in enumerate(zip(lines, expected)):
        where = f"line {i + 1}"
        assert (str(line["user"]), str(line["item"])) == (sample["user"], sample["item"]), where
        assert line["time"] == sample["begin"], where
        label = [(names[a - 1], t) for a, _, t in sample["tokens"]]
        assert [a for a, _ in line["label"]] == [a for a, _ in label], f"{where}: {line['label']} {label}"
        assert all(close(x[1], y[1]) for x, y in zip(line["label"], label)), where
        if i % stride:
            continue
        event = sample["event"]
        f_u = export.features(manifest["user_columns"], sample["user"], event.get("user_values", []))
        item_features = lambda s: export.features(
            manifest["item_columns"], s["item"], s["event"].get("item_values", [])
            + (item_counts(of_item[s["item"]], s["begin"], names) if counted else []))
        f_x = item_features(sample)
        past = [s for s in users[sample["user"]] if s["begin"] < sample["begin"]]
        past = past[-export.model["history"]:]
        items = []
        for s in past:
            tokens = known(s, sample["begin"])
            items.append((item_features(s), [a for a, _ in tokens], [t for _, t in tokens]))
        if export.model["history_counts"]:  # F_u ends with how often each action stands in the history
            of = lambda some: rates(len(some), [sum(a in x[1] for x in some) for a in range(2, model.m + 1)])
            gap = sample["begin"] - past[-1]["begin"] if past else 0
            f_u = np.concatenate([f_u, of(items), of(items[-10:])[1:], [math.log1p(gap / 60) / 10]])
        context = np.concatenate([f_u, f_x, model.history(items, f_x)])
        p, t, sequence = (model.exact if options.read == "exact" else model.greedy)(context)
        for a in range(2, model.m + 1):
            got_p, got_t = line["p"][names[a - 1]], line["t"][names[a - 1]]
            off.append(abs(got_p - p[a]))
            assert close(got_p, p[a], WORST_TOLERANCE), (
                f"{where}: P({names[a - 1]}) is {got_p}, expected {p[a]}")
            if p[a] > 1e-4:
                off.append(abs(got_t - t[a]) / max(1.0, abs(t[a])))
                assert close(got_t, t[a], WORST_TOLERANCE), (
                    f"{where}: T({names[a - 1]}) is {got_t}, expected {t[a]}")
        got = [(a, time) for a, time in line["sequence"]]
        if [a for a, _ in got] == [names[a - 1] for a, _ in sequence]:
            assert all(close(x[1], y[1], WORST_TOLERANCE) for x, y in zip(got, sequence)), (
                f"{where}: {got} {sequence}")
        n_checked += 1
        n_history += len(items)
    far = sum(number > TOLERANCE for number in off)
    assert far <= 0.02 * len(off), f"{far} of {len(off)} numbers are off by more than {TOLERANCE}"
    print(f"{len(lines)} lines in order with right labels; P, T of {n_checked} recomputed ({options.read}, "
          f"{n_history / max(n_checked, 1):.1f} history items each), median difference {np.median(off):.1e}, largest {max(off):.1e}")


if __name__ == "__main__":
    main()
