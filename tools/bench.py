"""Benchmarks. `python tools/bench.py kernels --json FILE` times every kernel, and
`python tools/bench.py avatar NAME.a3d --subject NAME.subject` what a user waits for: training,
photometric tracking, motion to pictures and to mp4, loading.
`python tools/bench.py all --json FILE` runs every command on a clip (a synthetic one unless
named): capture, training to several time limits with the quality reached, text to video, file
sizes, memory; with --growth also half the clip, half the resolution, half and twice the Gaussians.
FILE.html beside it has the curve.

Milliseconds are medians of wall-clock times on an otherwise idle machine (10th and 90th percentile
beside them). `other` is the same in torch (in numpy for meshes), on all threads.
`FMA` and `memory` compare the operations and bytes that a kernel needs at least with
what this machine measured at its best; see `benchmarks/cases.py` for the counts. Above 100 % of
memory, which is the rate of copying a large array, means that the data stayed in the cache.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.cases import Case, Run, all_cases, avatar_cases
from benchmarks.field import field_cases
from benchmarks.machine import Peak, describe, measure_peak, use_threads
from benchmarks.rays import ray_cases
from benchmarks.scenes import avatar_face
from rich.console import Console
from rich.table import Table

from avatar3d import kernels

# A wrong kernel's speed is of no interest. Relative, L2; a threshold crossed by rounding is 1e-4.
TOLERANCE = 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("kernels", help="rasterisers, image loss and binding")
    command.add_argument("--json", type=Path, help="also write the figures to this file")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--avatar", type=Path, help="a trained NAME.a3d to draw as well")
    command.add_argument("--rows", default="", metavar="PATTERN", help="regular expression")
    command.add_argument("--quick", action="store_true", help="a few rows, under 20 s")
    command.add_argument("--threads", type=int, default=kernels.get_num_threads())
    command.add_argument("--seconds", type=float, default=0.3, help="spent on each figure")
    command.add_argument("--simd", help="avx512, avx2 or plain; the fastest by default")
    command.add_argument("--no-reference", action="store_true", help="skip the slow torch twins")
    command.set_defaults(run=bench_kernels)
    command = commands.add_parser("avatar", help="loading, pictures, videos, training, tracking")
    command.add_argument("avatar", type=Path, help="a trained NAME.a3d")
    command.add_argument("--subject", type=Path, help="its subject, for training and tracking")
    command.add_argument("--json", type=Path, help="also write the figures to this file")
    command.set_defaults(run=bench_avatar)
    command = commands.add_parser("all", help="every command on a clip, with memory and quality")
    command.add_argument("clip", type=Path, nargs="?", help="a video; a synthetic one by default")
    command.add_argument("--json", type=Path, help="also write the figures, and a page beside them")
    command.add_argument("--work", type=Path, help="keep what the commands write in this folder")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--limits", type=float, nargs="*", default=[20, 40, 0], metavar="SECONDS")
    command.add_argument("--growth", action="store_true", help="also how costs grow")
    command.set_defaults(run=bench_all)
    options = parser.parse_args()
    options.run(options)


def bench_all(options: argparse.Namespace) -> None:
    """Time every command on a clip, print a line of each and write the JSON file and the page."""
    from benchmarks.everything import Benchmark, benchmark_page

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench: torch sees no CUDA device here; leave --device out for the CPU.")
    folder = options.work or Path(tempfile.mkdtemp(prefix="avatar3d-bench-"))
    benchmark = Benchmark(
        options.clip, folder, options.device, options.limits or [0], options.growth
    )
    threads = kernels.get_num_threads()
    machine = describe(options.device, {threads: measure_peak(options.device)})
    for name, figures in benchmark.run():
        print(f"{name:32} " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
    found = {"machine": machine, "threads": threads, "steps": benchmark.results}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        options.json.with_suffix(".html").write_text(benchmark_page(found))
        print(f"written to {options.json} and {options.json.with_suffix('.html')}")


def bench_avatar(options: argparse.Namespace) -> None:
    """Time what a user waits for, beside what it should be."""
    from benchmarks.whole import avatar_rows, subject_rows

    from avatar3d.subject import Subject

    rows = list(avatar_rows(options.avatar))
    if options.subject is not None:
        rows += subject_rows(options.avatar, Subject(options.subject))
    table = Table(box=None, pad_edge=False)
    for head in ("", "measured", "must", "goal"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in rows:
        sign = ">=" if row.least else "<="
        measured = f"{row.value:.3g} {row.unit}"
        table.add_row(row.name, measured, f"{sign} {row.must:g}", f"{sign} {row.goal:g}")
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if options.json:
        threads = kernels.get_num_threads()
        found = {"threads": threads, "rows": [vars(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written to {options.json}")


def bench_kernels(options: argparse.Namespace) -> None:
    """Time the chosen cases, print a table of each kind and write the JSON file."""
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench: torch sees no CUDA device here; leave --device out for the CPU.")
    if options.simd:
        from avatar3d.kernels._backend import native

        native().set_simd(options.simd)
    # one thread first, so that the last setting is that of the references
    counts = [options.threads] if options.device == "cuda" else sorted({1, options.threads})
    peaks: dict[int, Peak] = {}
    for threads in counts:
        use_threads(threads)
        peaks[threads] = measure_peak(options.device)
    machine = describe(options.device, peaks)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(_title(machine, peaks), highlight=False, soft_wrap=True)
    rows: list[dict[str, Any]] = []
    for kind, cases in _by_kind(options):
        measured = []
        for case in cases:
            with console.status(case.name):
                measured.append(_measure(case, options, counts, peaks))
        console.print(_table(kind, measured, counts))
        rows += measured
        for row in measured:
            if "skipped" in row:
                console.print(f"  {row['name']}: skipped, {row['skipped']}", highlight=False)
    _print_notes(console, rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        print(f"written to {options.json}")
    if wrong := [r["name"] for r in rows for o in r.get("others", {}).values() if "differs" in o]:
        sys.exit(f"bench: not equal to what they are compared with: {', '.join(wrong)}.")


def _by_kind(options: argparse.Namespace) -> list[tuple[str, list[Case]]]:
    cases = [*all_cases(), *field_cases(), *ray_cases()]
    path = options.avatar or _newest_avatar()
    if path is not None:
        cases += avatar_cases(avatar_face(path))
    elif options.device == "cpu":
        print("no trained avatar: name one with --avatar, or make one with tools/demo.sh.")
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        if re.search(options.rows, case.name) and (case.quick or not options.quick):
            kinds.setdefault(case.name.split()[0], []).append(case)
    return list(kinds.items())


def _newest_avatar() -> Path | None:
    """What tools/demo.sh left, if anything."""
    found = (Path(__file__).resolve().parents[1] / "demo").glob("*.a3d")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _measure(
    case: Case, options: argparse.Namespace, counts: list[int], peaks: dict[int, Peak]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": case.name}
    if case.cpu_only and options.device == "cuda":
        return row | {"skipped": "it runs on the CPU only"}
    try:
        run = case.make(options.device)
        run()
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
        if options.device == "cpu":
            raise
        return row | {"skipped": str(error).splitlines()[0]}
    row["ms"] = {}
    for threads in counts:
        use_threads(threads)
        row["ms"][str(threads)] = _percentiles(run, options.seconds, options.device)
    best = row["ms"][str(counts[-1])]["median"]
    if len(counts) > 1:
        row["scaling"] = row["ms"][str(counts[0])]["median"] / best
    if case.scene is not None:
        counted = case.scene().counts
        row["scene"] = {
            "gaussians": len(case.scene()),
            "pairs": counted.pairs,
            "pairs_per_covered_pixel": counted.pairs / max(1, counted.covered),
            "covered": counted.covered / counted.pixels,
        }
    if case.samples:
        row["ns_per_sample"] = 1e6 * best / case.samples
    if case.work is not None:
        row["flops"], row["bytes"] = case.work()
        peak, seconds = peaks[counts[-1]], best / 1000
        row["of_fma_peak"] = row["flops"] / seconds / peak.flops
        row["of_memory_peak"] = row["bytes"] / seconds / peak.bytes
    _compare(case, run, row, options)
    return row


def _compare(case: Case, run: Run, row: dict[str, Any], options: argparse.Namespace) -> None:
    """The same in other ways, which must agree: milliseconds, and how much slower they are."""
    row["others"] = {}
    for name, make in case.others.items():
        if name == "gsplat" and options.device == "cpu":
            continue  # it has no CPU kernels
        if name != "gsplat" and options.no_reference:
            continue
        try:
            other = make(options.device)
            expected = other()
        except (ImportError, RuntimeError) as error:
            row["others"][name] = {"skipped": str(error).splitlines()[0]}
            continue
        found = run() if case.compare else ()
        pairs = zip(found, expected if case.compare else (), strict=True)
        difference = max((_relative(a, b) for a, b in pairs), default=None)
        if difference is not None and not difference < TOLERANCE:
            row["others"][name] = {"differs": difference}
            continue
        median = _percentiles(other, options.seconds, options.device, least=3)["median"]
        best = row["ms"][str(options.threads)]["median"]
        row["others"][name] = {
            "ms": median, "ratio": median / best, "relative_difference": difference,
        }  # fmt: skip


def _relative(value: torch.Tensor, truth: torch.Tensor) -> float:
    truth = truth.detach().double()
    difference = torch.linalg.vector_norm(value.detach().double() - truth)
    return float(difference / torch.linalg.vector_norm(truth).clamp(min=1e-12))


def _percentiles(run: Run, seconds: float, device: str, least: int = 5) -> dict[str, float]:
    """Milliseconds of `run`, called for about `seconds` after a warm-up."""

    def once() -> float:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    if once() < 200:
        once()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < least or time.perf_counter() - begin < seconds:
        times.append(once())
    times.sort()
    return {
        "median": statistics.median(times),
        "p10": times[len(times) // 10],
        "p90": times[len(times) * 9 // 10],
        "calls": len(times),
    }


def _title(machine: dict[str, Any], peaks: dict[int, Peak]) -> str:
    info = machine["kernels"]
    lines = [machine.get("gpu") or f"{machine['processor']}, {info['simd']}, {info['compiler']}"]
    lines += [
        f"{threads} thread{'s' * (threads > 1)}: {peak.flops / 1e9:.0f} GFLOP/s "
        f"({peak.flops_by}), {peak.bytes / 1e9:.0f} GB/s (copy)"
        for threads, peak in peaks.items()
    ]
    return "\n".join(lines)


def _table(kind: str, rows: list[dict[str, Any]], counts: list[int]) -> Table:
    table = Table(title=f"\n{kind}, milliseconds", box=None, pad_edge=False, title_justify="left")
    table.add_column("", no_wrap=True)
    heads = [f"{threads} thr" for threads in counts]
    for head in (*heads, "p10-p90", "scaling", "other", "ratio", "FMA", "memory"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        if "skipped" in row:
            continue
        all_threads = row["ms"][str(counts[-1])]
        cells = [f"{row['ms'][str(n)]['median']:.2f}" for n in counts]
        cells.append(f"{all_threads['p10']:.2f}-{all_threads['p90']:.2f}")
        cells.append(f"{row['scaling']:.2f}x" if "scaling" in row else "")
        timed = {name: o for name, o in row["others"].items() if "ms" in o}
        name = next((n for n in ("torch", "numpy", "gsplat") if n in timed), None)
        cells.append(f"{timed[name]['ms']:.3g}" if name else "")
        cells.append(f"{timed[name]['ratio']:.3g}x" if name else "")
        for share in ("of_fma_peak", "of_memory_peak"):
            cells.append(f"{row[share]:.0%}" if row.get(share) else "")
        table.add_row(row["name"].removeprefix(kind).strip(), *cells)
    return table


def _print_notes(console: Console, rows: list[dict[str, Any]]) -> None:
    """What does not fit the tables: the scenes, and the further comparisons."""
    seen = set()
    for row in rows:
        label = row["name"].rsplit(" ", 1)[0]
        if (scene := row.get("scene")) and label not in seen:
            seen.add(label)
            console.print(
                f"{label}: {scene['pairs'] / 1e6:.2f} M pairs blended, "
                f"{scene['pairs_per_covered_pixel']:.1f} per covered pixel, "
                f"{scene['covered']:.0%} of the picture covered",
                highlight=False,
            )
    for row in rows:
        if "ns_per_sample" in row:
            text = f"{row['name']}: {row['ns_per_sample']:.1f} ns per sample"
            console.print(text, highlight=False)
    for row in rows:
        for name, other in row.get("others", {}).items():
            if "differs" in other:
                text = f"differs by {other['differs']:.1e}, relative"
            else:
                text = other.get("skipped") or f"{other['ms']:.2f} ms, {other['ratio']:.2f}x"
            console.print(f"{row['name']}, {name}: {text}", highlight=False)


if __name__ == "__main__":
    main()
