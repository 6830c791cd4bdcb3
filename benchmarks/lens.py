"""What a lens costs and what it brings, on the embedded model.

    python benchmarks/lens.py            the default fit, timed, and how good it is
    python benchmarks/lens.py sweep      divergence by number of tokens and penalty
    python benchmarks/lens.py polish     how far gradient descent goes on from there

Run it on an otherwise idle machine; OMP_NUM_THREADS sets the cores.
"""

import sys
import time
from pathlib import Path

import torch

import iglens
from iglens.explaining.lenses.accumulate import accumulate
from iglens.explaining.lenses.evaluate import evaluate_on, scores_on
from iglens.explaining.lenses.fit import fit
from iglens.explaining.lenses.parts import gather
from iglens.explaining.lenses.polish import Polisher
from iglens.explaining.lenses.ridge import ridge_translator
from iglens.explaining.lenses.solve import fit_on
from iglens.explaining.lenses.text import Corpus, encoded, generated
from iglens.model.loading.child import silent
from iglens.readout import MEMORY_BUDGET
from iglens.readout.lens import AffineLens

LAYERS = (0, 6, 12, 18, 24, 27, 29)
PAGES = ("README.md", "docs/method.md", "docs/limits.md", "docs/models.md")


def pages(decoder: iglens.Decoder, tokens: int) -> Corpus:
    """Text that people wrote: paragraphs of this project's own pages."""
    root = Path(__file__).resolve().parents[1]
    texts = [part for page in PAGES for part in (root / page).read_text().split("\n\n")]
    texts = [text for text in texts if len(text) > 200 and "|" not in text]
    return encoded(decoder, texts, tokens, "paragraphs of this project's pages")


def default(decoder: iglens.Decoder) -> None:
    """Time the default fit, and judge it on two texts it has not seen."""
    start, worked = time.perf_counter(), time.process_time()
    fitted = fit(decoder)
    seconds = time.perf_counter() - start
    worked = time.process_time() - worked
    settings = fitted.lens.info.settings
    print(
        f"Fitted on {settings['tokens']} tokens in {seconds:.0f} s with "
        f"{torch.get_num_threads()} thread(s), {worked:.0f} s of processor time; "
        f"penalty {settings['ridge']:g}"
    )
    for corpus in (generated(decoder, 1024, 1_000_001), pages(decoder, 1024)):
        found = evaluate_on(decoder, fitted.lens, corpus, tokens=1024, layers=LAYERS)
        print(
            f"\n{found.tokens} tokens of {found.documents} documents ({found.source})"
        )
        print("\n| layer | KL, bits | fitted | bias, bits | fitted | top-1 | fitted |")
        print("|---|---|---|---|---|---|---|")
        for at, layer in enumerate(found.layers):
            cells = [
                f"{getattr(scores, name)[at]:{form}}"
                for name, form in (
                    ("kl_bits", ".2f"),
                    ("bias_bits", ".2f"),
                    ("agreement", ".1%"),
                )
                for scores in (found.raw, found.fitted)
            ]
            print(f"| {layer} | {' | '.join(cells)} |")


def sweep(decoder: iglens.Decoder) -> None:
    """Mean divergence in bits by tokens and penalty."""
    text = generated(decoder, 20_000, 0)
    judged = {
        "self-generated": generated(decoder, 512, 1_000_001),
        "pages": pages(decoder, 512),
    }
    moments, seen = {}, 0
    layers = (0, 12, 24, 29)
    goals = [700, 1200, 2400, 4800, 9600, 19_000]
    print(
        "| tokens | penalty | text | " + " | ".join(f"layer {i}" for i in layers) + " |"
    )
    print("|---" * (3 + len(layers)) + "|")
    for document in text.documents:
        piece = Corpus((document,), "one")
        moments = accumulate(decoder, piece, layers, silent, moments)
        seen += piece.tokens
        if not goals or seen < goals[0]:
            continue
        goals.pop(0)
        for penalty in (0.001, 0.01, 0.1, 1.0):
            parts = [ridge_translator(moments[i], penalty, layer=i) for i in layers]
            lens = AffineLens(
                "ridge",
                decoder.n_layers,
                layers,
                torch.stack([weight.float() for weight, _ in parts]),
                torch.stack([bias.float() for _, bias in parts]),
            )
            for name, corpus in judged.items():
                (scores,) = scores_on(
                    decoder,
                    [lens],
                    corpus,
                    layers,
                    tokens=512,
                    memory_budget=MEMORY_BUDGET,
                )
                cells = " | ".join(f"{value:.2f}" for value in scores.kl_bits)
                print(f"| {seen} | {penalty:g} | {name} | {cells} |", flush=True)


def polish(decoder: iglens.Decoder) -> None:
    """Gradient descent at three layers, by its rate."""
    layers = (12, 24, 29)
    parts = gather(decoder, tokens=20_000)
    start = fit_on(decoder, parts, layers)

    def show(name: str, lens: AffineLens) -> None:
        (scores,) = scores_on(
            decoder,
            [lens],
            parts.held_out,
            layers,
            tokens=512,
            memory_budget=MEMORY_BUDGET,
        )
        cells = " | ".join(f"{value:.2f}" for value in scores.kl_bits)
        print(f"| {name} | {cells} |", flush=True)

    print("| rate | " + " | ".join(f"layer {i}" for i in layers) + " |")
    print("|---" * (1 + len(layers)) + "|")
    show("closed form", start)
    for rate in (1.0, 0.3, 0.1):
        recipe = iglens.Polish(steps=150, tokens=128, rate=rate)
        polisher = Polisher(decoder, start, recipe)
        polisher.run(parts.learned.pieces, silent)
        show(
            f"{rate:g}, {recipe.steps} steps of {recipe.tokens} tokens",
            polisher.lens(start, start.info),
        )


if __name__ == "__main__":
    chosen = {"sweep": sweep, "polish": polish}.get(
        sys.argv[1] if sys.argv[1:] else "", default
    )
    chosen(iglens.Decoder.from_pretrained("smollm2"))
