"""The published PianoBind written out plainly, to check ours against: tiny weights in its layout, and its formulas.

Nothing here uses the package, and loops are preferred to whatever is fast.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from transformers import RobertaConfig, RobertaModel

WIDTH, BLOCKS, AUDIO_SIZE = 4, (1, 2, 1, 1), 12
HIDDEN, HEAD_SIZE, LAYERS, INNER, FIELD_SIZE, NOTES = 24, 8, 2, 40, 6, 16
FIELDS = (4, 18, 88, 66)
PAD_WORD = (2, 16, 86, 64)
DIM = 20
TEXT_CONFIG = RobertaConfig(
    vocab_size=50,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=1,
    intermediate_size=96,
    max_position_embeddings=90,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
)


def published_state_dict(variant="trimodal", seed=0) -> dict:
    """Random weights under the published names, in tiny widths."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    if variant != "midi_text":
        tensors.update(_with("audio_backbone.", _audio_tensors(random)))
        tensors["audio_projection.weight"] = _normal(random, DIM, AUDIO_SIZE)
    if variant != "audio_text":
        bert = _midi_tensors(random)
        tensors.update(_with("midi_backbone.midibert.", bert))
        tensors.update(_with("midi_backbone.model.midibert.", {name: value.clone() for name, value in bert.items()}))
        tensors.update(_with("midi_backbone.model.", _mask_lm_tensors(random)))
        tensors["midi_projection.weight"] = _normal(random, DIM, HIDDEN)
    text = {name: _normal(random, *value.shape) for name, value in RobertaModel(TEXT_CONFIG).state_dict().items()}
    tensors.update(_with("textual_head.", text))
    tensors["text_projection.weight"] = _normal(random, DIM, TEXT_CONFIG.hidden_size)
    tensors["logit_scale"] = torch.tensor(math.log(1 / 0.07))
    return tensors


def midi_bert_state_dict(seed=0) -> dict:
    """Random weights of MIDI-BERT with its language heads, as its own training code saves them."""
    random = torch.Generator().manual_seed(seed)
    return {**_with("midibert.", _midi_tensors(random)), **_mask_lm_tensors(random)}


def _with(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def _normal(random, *shape, scale=0.2):
    return torch.randn(*shape, generator=random) * scale


def _linear(random, name, out, into):
    return {f"{name}.weight": _normal(random, out, into), f"{name}.bias": _normal(random, out)}


def _norm(random, name, size):
    return {f"{name}.weight": 1 + _normal(random, size), f"{name}.bias": _normal(random, size)}


def _batch_norm(random, name, size):
    return {
        **_norm(random, name, size),
        f"{name}.running_mean": _normal(random, size),
        f"{name}.running_var": 1 + torch.rand(size, generator=random),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def _audio_tensors(random):
    tensors, convolutions = {}, [("conv1", "bn1", 1, WIDTH // 2, 3), ("conv2", "bn2", WIDTH // 2, WIDTH // 2, 3)]
    convolutions.append(("conv3", "bn3", WIDTH // 2, WIDTH, 3))
    channels = WIDTH
    for stage, blocks in enumerate(BLOCKS):
        inner = WIDTH * 2**stage
        for number in range(blocks):
            block = f"layer{stage + 1}.{number}."
            convolutions.append((block + "conv1", block + "bn1", channels, inner, 1))
            convolutions.append((block + "conv2", block + "bn2", inner, inner, 3))
            convolutions.append((block + "conv3", block + "bn3", inner, 4 * inner, 1))
            if number == 0:
                convolutions.append((block + "downsample.0", block + "downsample.1", channels, 4 * inner, 1))
            channels = 4 * inner
    for name, norm, into, out, size in convolutions:
        tensors[f"{name}.weight"] = _normal(random, out, into, size, size, scale=1 / (into * size * size) ** 0.5)
        tensors.update(_batch_norm(random, norm, out))
    tensors["attnpool.positional_embedding"] = _normal(random, 77, channels)
    for name, out in (("q_proj", channels), ("k_proj", channels), ("v_proj", channels), ("c_proj", AUDIO_SIZE)):
        tensors.update(_linear(random, f"attnpool.{name}", out, channels))
    return tensors


def _midi_tensors(random):
    tensors = {f"word_emb.{i}.lut.weight": _normal(random, size, FIELD_SIZE) for i, size in enumerate(FIELDS)}
    tensors.update(_linear(random, "in_linear", HIDDEN, 4 * FIELD_SIZE))
    embeddings = "bert.embeddings."
    tensors[embeddings + "word_embeddings.weight"] = _normal(random, 30, HIDDEN)
    tensors[embeddings + "position_embeddings.weight"] = _normal(random, NOTES, HIDDEN)
    tensors[embeddings + "token_type_embeddings.weight"] = _normal(random, 2, HIDDEN)
    tensors.update(_norm(random, embeddings + "LayerNorm", HIDDEN))
    for number in range(LAYERS):
        layer = f"bert.encoder.layer.{number}."
        for name in ("query", "key", "value"):
            tensors.update(_linear(random, f"{layer}attention.self.{name}", HIDDEN, HIDDEN))
        tensors[layer + "attention.self.distance_embedding.weight"] = _normal(random, 2 * NOTES - 1, HEAD_SIZE)
        tensors.update(_linear(random, layer + "attention.output.dense", HIDDEN, HIDDEN))
        tensors.update(_norm(random, layer + "attention.output.LayerNorm", HIDDEN))
        tensors.update(_linear(random, layer + "intermediate.dense", INNER, HIDDEN))
        tensors.update(_linear(random, layer + "output.dense", HIDDEN, INNER))
        tensors.update(_norm(random, layer + "output.LayerNorm", HIDDEN))
    tensors.update(_linear(random, "bert.pooler.dense", HIDDEN, HIDDEN))
    return tensors


def _mask_lm_tensors(random):
    tensors = {}
    for number, size in enumerate(FIELDS):
        tensors.update(_linear(random, f"mask_lm.proj.{number}", size, HIDDEN))
    return tensors


def _part(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def audio_embedding(tensors, mel):
    """`mel (128, 626)` in decibels -> unit embedding `(dim,)`."""
    p = _part(tensors, "audio_backbone.")

    def norm(x, name):
        mean, variance = p[name + ".running_mean"], p[name + ".running_var"]
        return F.batch_norm(x, mean, variance, p[name + ".weight"], p[name + ".bias"])

    x = mel[None, None]
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = F.relu(norm(F.conv2d(x, p[f"conv{number}.weight"], stride=stride, padding=1), f"bn{number}"))
    x = F.avg_pool2d(x, 2)
    for stage, blocks in enumerate(BLOCKS):
        for number in range(blocks):
            block, halved = f"layer{stage + 1}.{number}.", number == 0 and stage > 0
            y = F.relu(norm(F.conv2d(x, p[block + "conv1.weight"]), block + "bn1"))
            y = F.relu(norm(F.conv2d(y, p[block + "conv2.weight"], padding=1), block + "bn2"))
            if halved:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
            y = norm(F.conv2d(y, p[block + "conv3.weight"]), block + "bn3")
            if number == 0:
                x = norm(F.conv2d(x, p[block + "downsample.0.weight"]), block + "downsample.1")
            x = F.relu(x + y)
    cells = x.flatten(2).permute(2, 0, 1)
    cells = torch.cat([cells.mean(0, keepdim=True), cells]) + p["attnpool.positional_embedding"][:, None]
    pooled, _ = F.multi_head_attention_forward(
        cells,
        cells,
        cells,
        cells.shape[-1],
        WIDTH // 2,
        None,
        torch.cat([p[f"attnpool.{name}_proj.bias"] for name in "qkv"]),
        None,
        None,
        False,
        0.0,
        p["attnpool.c_proj.weight"],
        p["attnpool.c_proj.bias"],
        training=False,
        use_separate_proj_weight=True,
        q_proj_weight=p["attnpool.q_proj.weight"],
        k_proj_weight=p["attnpool.k_proj.weight"],
        v_proj_weight=p["attnpool.v_proj.weight"],
    )
    return _unit(tensors["audio_projection.weight"] @ pooled[0, 0])


def midi_hidden(p, words):
    """Last hidden states `(notes, hidden)` of `words (notes, 4)`; `p` holds MIDI-BERT's tensors."""
    x = torch.cat([p[f"word_emb.{i}.lut.weight"][words[:, i]] * math.sqrt(FIELD_SIZE) for i in range(4)], dim=1)
    x = _apply(p, "in_linear", x) + p["bert.embeddings.token_type_embeddings.weight"][0]
    x = _layer_norm(p, "bert.embeddings.LayerNorm", x)
    seen = [j for j in range(len(words)) if words[j, 0] != PAD_WORD[0]]
    for number in range(LAYERS):
        layer = f"bert.encoder.layer.{number}."
        q, k, v = (_apply(p, f"{layer}attention.self.{name}", x) for name in ("query", "key", "value"))
        table = p[layer + "attention.self.distance_embedding.weight"]
        mixed = torch.zeros_like(x)
        for head in range(HIDDEN // HEAD_SIZE):
            part = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            for i in range(len(x)):
                scores = []
                for j in seen:
                    distance = table[i - j + NOTES - 1]
                    score = q[i, part] @ k[j, part] + q[i, part] @ distance + k[j, part] @ distance
                    scores.append(score / math.sqrt(HEAD_SIZE))
                shares = torch.stack(scores).softmax(0)
                mixed[i, part] = sum(share * v[j, part] for share, j in zip(shares, seen, strict=True))
        x = _layer_norm(
            p, layer + "attention.output.LayerNorm", x + _apply(p, layer + "attention.output.dense", mixed)
        )
        inner = F.gelu(_apply(p, layer + "intermediate.dense", x))
        x = _layer_norm(p, layer + "output.LayerNorm", x + _apply(p, layer + "output.dense", inner))
    return x


def midi_embedding(tensors, words):
    """`words (notes, 4)` -> unit embedding `(dim,)`, over all `NOTES` places."""
    missing = torch.tensor([PAD_WORD] * (NOTES - len(words)), dtype=torch.long).view(-1, 4)
    hidden = midi_hidden(_part(tensors, "midi_backbone.midibert."), torch.cat([words, missing]))
    return _unit(tensors["midi_projection.weight"] @ hidden.mean(0))


def text_embedding(tensors, ids):
    """Token ids -> unit embedding `(dim,)`, over 77 places filled up with id 0."""
    model = RobertaModel(TEXT_CONFIG).eval()
    model.load_state_dict(_part(tensors, "textual_head."))
    padded = torch.tensor([list(ids) + [0] * (77 - len(ids))])
    mask = torch.tensor([[1] * len(ids) + [0] * (77 - len(ids))])
    hidden = model(input_ids=padded, attention_mask=mask).last_hidden_state[0]
    return _unit(tensors["text_projection.weight"] @ hidden.mean(0))


def _apply(p, name, x):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def _layer_norm(p, name, x):
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-12) * p[name + ".weight"] + p[name + ".bias"]
    )


def _unit(x):
    return x / x.norm()


def clip_loss(rows, columns, scale):
    """Mean cross-entropy of both directions."""
    logits, right = scale * rows @ columns.T, torch.arange(len(rows))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def mel_decibels(samples):
    """A mono waveform of 320,000 samples -> `(128, 626)`: frame by frame, band by band."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    padded = np.pad(np.asarray(samples, np.float64), 512, mode="reflect")
    frames = np.stack([padded[start : start + 1024] for start in range(0, len(padded) - 1023, 512)])
    power = np.abs(np.fft.rfft(frames * window, axis=1) / np.sqrt((window**2).sum())) ** 2

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    corners = 700 * (10 ** (np.linspace(mel(0), mel(11025), 130) / 2595) - 1)
    bands = np.zeros((128, len(frames)))
    for band in range(128):
        low, middle, high = corners[band : band + 3]
        for place in range(513):
            hertz = place * 8000 / 512
            weight = min((hertz - low) / (middle - low), (high - hertz) / (high - middle))
            if weight > 0:
                bands[band] += weight * power[:, place]
    decibels = 10 * np.log10(np.maximum(bands, 1e-10))
    return np.maximum(decibels, decibels.max() - 100)


def compound_words(tracks):
    """Notes `(start, length, pitch)` in ticks of a 480th of a beat, by tracks -> words, and start tick of each bar."""
    notes = []
    for track in tracks:
        notes += [note for note in sorted(track, key=lambda note: (note[0], note[2])) if 22 <= note[2] <= 107]
    notes.sort(key=lambda note: note[0])
    grid = list(range(0, notes[-1][0], 120)) or [0]
    durations = list(range(60, 3841, 60))
    words, bars, bar_ticks = [], set(), []
    for start, length, pitch in notes:
        place = min(grid, key=lambda tick: abs(tick - start))
        bar = place // 1920
        position = place % 1920 // 120
        duration = min(range(64), key=lambda index: abs(durations[index] - length))
        if bar not in bars:
            bar_ticks.append(place)
        words.append([0 if bar not in bars else 1, position, pitch - 22, duration])
        bars.add(bar)
    return words, bar_ticks


def compound_window(words, bar_seconds, start, end, most=512):
    """The words from the bar nearest to `start` up to the bar after the one nearest to `end`, and padding."""
    first_words = [index for index, word in enumerate(words) if word[0] == 0]

    def nearest(moment):
        return min(range(len(bar_seconds)), key=lambda bar: abs(bar_seconds[bar] - moment))

    last = min(nearest(end) + 1, len(first_words) - 1)
    cut = words[first_words[nearest(start)] : first_words[last]][:most]
    return cut + [list(PAD_WORD)] * (most - len(cut))
