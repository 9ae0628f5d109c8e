"""A2Gen in PyTorch, written from MODEL.md alone: what bench_train is compared with.

    bench_train_pytorch.py DIR [--steps N] [--variant padded|packed] [--grads FILE]

reads a batch and the weights that bench_train wrote into DIR, and prints one JSON object: losses, samples/s of
forward + backward (median, min, max; processor time, one thread). `padded` is the model as one would write it: every history is
[B, H, M] tokens and masks. `packed` runs the linear maps over the tokens that exist, and encodes each distinct
history item once; the attention is still padded, as PyTorch's batched products need it. --grads also writes all
gradients, as float32 in the order of arrays.txt (parameters, then user, then item).
"""
import argparse
import json
import math
import os
import sys
import time

try:
    import numpy as np
    import torch
except ImportError as missing:
    print(json.dumps({"skipped": "PyTorch is not installed: %s" % missing}))
    sys.exit(0)

F = torch.nn.functional


def load(folder):
    arrays, order = {}, []
    with open(os.path.join(folder, "arrays.txt")) as index:
        for line in index:
            name, kind, count = line.split()
            data = np.fromfile(os.path.join(folder, name + ".bin"), dtype=kind)
            assert data.size == int(count), name
            arrays[name] = data
            order.append(name)
    return arrays, order


class A2Gen:
    def __init__(self, a, order):
        M, H, d, h, user, item, n_global = [int(x) for x in a["sizes"]]
        self.M, self.H, self.d, self.h, self.n_global = M, H, d, h, n_global
        self.alpha, self.beta, self.gamma = [float(x) for x in a["weights"]]
        shapes = {"E": (M + 1, d), "W_t": (9, d), "P": (M, d), "W_q": (d, d), "W_k": (d, d), "W_v": (d, d),
                  "W_o": (d, d), "W_1": (d, 2 * d), "W_2": (2 * d, d), "Rho": (h, H), "W_c1": (d, d),
                  "W_c2": (d, M + 1), "W_t1": (d, d)}
        self.p = {}
        for name in order:
            if "." not in name:
                continue
            t = torch.tensor(a[name])
            leaf = name.split(".")[1]
            if leaf in shapes:
                t = t.view(shapes[leaf])
            elif leaf in ("W_x", "W_c"):
                t = t.view(-1, d)
            elif leaf == "W_g":
                t = t.view(-1, h)
            self.p[name] = t.requires_grad_()
        self.user = torch.tensor(a["user"]).view(-1, user).requires_grad_()
        self.item = torch.tensor(a["item"]).view(-1, item).requires_grad_()

    def tokens(self, module, action, times):
        """[..., L] classes and times -> [..., L, d]"""
        p, L = self.p, action.shape[-1]
        t = times.clamp(0, 4)
        waves = [2 ** k * math.pi * t for k in range(4)]
        phi = torch.stack([t] + [w.sin() for w in waves] + [w.cos() for w in waves], -1)
        return p[module + ".E"][action] + phi @ p[module + ".W_t"] + p[module + ".b_t"] + p[module + ".P"][:L]

    def cam(self, module, S, c, allowed, rho=None):
        """S [G, L, d_s], c [G, d_c], allowed [G or 1, L, L], rho [G, h, L] -> [G, L, d]"""
        p = {k.split(".")[1]: v for k, v in self.p.items() if k.startswith(module + ".")}
        G, L, d, h = S.shape[0], S.shape[1], self.d, self.h
        X = S @ p["W_x"] + p["b_x"]
        U = X + (c @ p["W_c"]).unsqueeze(1)

        def heads(x):
            return x.view(G, L, h, d // h).transpose(1, 2)

        scores = heads(U @ p["W_q"] + p["b_q"]) @ heads(X @ p["W_k"]).transpose(2, 3) / math.sqrt(d // h)
        if rho is not None:
            scores = scores + rho.unsqueeze(2)
        A = scores.masked_fill(~allowed.unsqueeze(1), -1e30).softmax(-1)
        g = h * (c @ p["W_g"] + p["b_g"]).softmax(-1)
        O = (g.view(G, h, 1, 1) * (A @ heads(X @ p["W_v"] + p["b_v"]))).transpose(1, 2).reshape(G, L, d)
        R = F.layer_norm(U + O @ p["W_o"] + p["b_o"], (d,), p["ln1_w"], p["ln1_b"], 1e-5)
        return F.layer_norm(R + (R @ p["W_1"] + p["b_1"]).relu() @ p["W_2"] + p["b_2"], (d,), p["ln2_w"],
                            p["ln2_b"], 1e-5)

    def cam_packed(self, module, S, c, group, place, L):
        """the same over packed rows: S [n, d_s], row i being place[i] of group[i]; attention padded to L"""
        p = {k.split(".")[1]: v for k, v in self.p.items() if k.startswith(module + ".")}
        G, d, h = c.shape[0], self.d, self.h
        at = group * L + place

        def heads(x):
            return x.new_zeros(G * L, d).index_copy(0, at, x).view(G, L, h, d // h).transpose(1, 2)

        X = S @ p["W_x"] + p["b_x"]
        U = X + (c @ p["W_c"])[group]
        present = torch.zeros(G * L, dtype=torch.bool)
        present[at] = True
        scores = heads(U @ p["W_q"] + p["b_q"]) @ heads(X @ p["W_k"]).transpose(2, 3) / math.sqrt(d // h)
        A = scores.masked_fill(~present.view(G, 1, 1, L), -1e30).softmax(-1)
        g = h * (c @ p["W_g"] + p["b_g"]).softmax(-1)
        O = (g.view(G, h, 1, 1) * (A @ heads(X @ p["W_v"] + p["b_v"]))).transpose(1, 2).reshape(G * L, d)[at]
        R = F.layer_norm(U + O @ p["W_o"] + p["b_o"], (d,), p["ln1_w"], p["ln1_b"], 1e-5)
        return F.layer_norm(R + (R @ p["W_1"] + p["b_1"]).relu() @ p["W_2"] + p["b_2"], (d,), p["ln2_w"],
                            p["ln2_b"], 1e-5)

    def item_level(self, Seq, F_x, present, target):
        """Seq, F_x [B, H, ...] aligned to the end, present [B, H] -> Vec_hist [B, d]"""
        B, H = present.shape
        recency = torch.arange(H - 1, -1, -1)
        rho = self.p["cam_item.Rho"][:, recency].expand(B, self.h, H)
        # a sample without history attends itself, and is zeroed below
        allowed = present.unsqueeze(1) | torch.eye(H, dtype=torch.bool)
        Y = self.cam("cam_item", torch.cat([Seq, F_x], -1), target, allowed, rho)
        weight = present.to(Y.dtype)
        return (Y * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)

    def losses(self, b, packed):
        target = self.item[b["sample_item"]]
        if packed:
            tok = self.tokens("token_hist", b["seq_action"].unsqueeze(-1), b["seq_time"].unsqueeze(-1))
            tok = tok.squeeze(-2) + (self.p["token_hist.P"][b["token_place"]] - self.p["token_hist.P"][0])
            Y = self.cam_packed("cam_act", tok, self.item[b["seq_item"]], b["token_seq"], b["token_place"], self.M)
            Seq = Y.new_zeros(len(b["seq_item"]), self.d).index_add(0, b["token_seq"], Y) / b["seq_length"]
            seq = Seq[b["hist"].reshape(-1)].view(*b["hist"].shape, self.d)
        else:
            B, H, M = b["hist_action"].shape
            tok = self.tokens("token_hist", b["hist_action"].view(B * H, M), b["hist_time"].view(B * H, M))
            present = b["hist_token"].view(B * H, M)
            allowed = present.unsqueeze(1) | torch.eye(M, dtype=torch.bool)
            Y = self.cam("cam_act", tok, self.item[b["hist_item"]].view(B * H, -1), allowed)
            weight = present.to(Y.dtype)
            seq = (Y * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
            seq = seq.view(B, H, self.d)
        vec = self.item_level(seq, self.item[b["hist_item"]], b["present"], target)
        context = torch.cat([self.user[b["sample_user"]], target, vec], -1)
        action, times = b["target_action"], b["target_time"]
        causal = torch.ones(self.M - 1, self.M - 1, dtype=torch.bool).tril().unsqueeze(0)
        Y = self.cam("cam_gen", self.tokens("token_gen", action[:, :-1], times[:, :-1]), context, causal)
        p = self.p
        logits = (Y @ p["decision.W_c1"] + p["decision.b_c1"]).relu() @ p["decision.W_c2"] + p["decision.b_c2"]
        That = (Y @ p["decision.W_t1"] + p["decision.b_t1"]).relu() @ p["decision.w_t2"] + p["decision.b_t2"]
        truth, T = action[:, 1:], times[:, 1:]
        cls = F.cross_entropy(logits.reshape(-1, self.M + 1), truth.reshape(-1), reduction="sum")
        valid = (truth > 0).to(T.dtype)
        reg = (((That - T) ** 2 * valid).sum(1) / valid.sum(1).clamp(min=1)).sum()
        pairs = valid.unsqueeze(2) * valid.unsqueeze(1) * torch.ones(self.M - 1, self.M - 1).triu(1)
        order = ((That.unsqueeze(2) - That.unsqueeze(1)).clamp(min=0) ** 2 * pairs).sum()
        return cls / self.n_global, reg / self.n_global, order / self.n_global


def arrange(a, model):
    """the index arrays as padded tensors; not part of what is timed"""
    M, H, B = model.M, model.H, len(a["sample_item"])
    hist = np.zeros((B, H), np.int64)
    present = np.zeros((B, H), bool)
    for i in range(B):
        row = a["hist_seq"][a["hist_offset"][i]:a["hist_offset"][i + 1]]
        if len(row):
            hist[i, H - len(row):] = row
            present[i, H - len(row):] = True
    n_seqs = len(a["seq_item"])
    action, times, token = np.zeros((n_seqs, M), np.int64), np.zeros((n_seqs, M), np.float32), np.zeros((n_seqs, M), bool)
    for s in range(n_seqs):
        lo, hi = a["seq_offset"][s], a["seq_offset"][s + 1]
        action[s, :hi - lo], times[s, :hi - lo], token[s, :hi - lo] = a["seq_action"][lo:hi], a["seq_time"][lo:hi], True
    target_action, target_time = np.zeros((B, M), np.int64), np.zeros((B, M), np.float32)
    for i in range(B):
        lo, hi = a["target_offset"][i], a["target_offset"][i + 1]
        target_action[i, :hi - lo], target_time[i, :hi - lo] = a["target_action"][lo:hi], a["target_time"][lo:hi]
    seq_of, place_of = np.nonzero(token)
    b = dict(hist=hist, present=present, hist_item=a["seq_item"].astype(np.int64)[hist],
             hist_action=action[hist], hist_time=times[hist], hist_token=token[hist] & present[..., None],
             target_action=target_action, target_time=target_time, seq_item=a["seq_item"].astype(np.int64),
             seq_action=a["seq_action"].astype(np.int64), seq_time=a["seq_time"], token_seq=seq_of,
             token_place=place_of, seq_length=np.diff(a["seq_offset"]).astype(np.float32)[:, None],
             sample_item=a["sample_item"].astype(np.int64), sample_user=a["sample_user"].astype(np.int64))
    return {name: torch.tensor(value) for name, value in b.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--variant", choices=["padded", "packed"], default="padded")
    parser.add_argument("--grads")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arrays, order = load(options.folder)
    model = A2Gen(arrays, order)
    batch = arrange(arrays, model)
    leaves = list(model.p.values()) + [model.user, model.item]
    seconds, values = [], None
    for _ in range(options.steps + 1):
        for leaf in leaves:
            leaf.grad = None
        start = time.process_time()
        cls, reg, over = model.losses(batch, options.variant == "packed")
        total = model.alpha * cls + model.beta * reg + model.gamma * over
        total.backward()
        seconds.append(time.process_time() - start)
        values = [float(x) for x in (cls, reg, over, total)]
    if options.grads:
        np.concatenate([leaf.grad.numpy().ravel() for leaf in leaves]).astype(np.float32).tofile(options.grads)
    seconds = sorted(seconds[1:]) if len(seconds) > 1 else seconds
    n = len(batch["sample_item"])
    print(json.dumps({"cls": values[0], "reg": values[1], "order": values[2], "total": values[3],
                      "samples_per_s": n / seconds[len(seconds) // 2], "min": n / seconds[-1], "max": n / seconds[0],
                      "variant": options.variant, "torch": torch.__version__}))


main()
