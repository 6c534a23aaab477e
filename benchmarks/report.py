"""Medians beside their peers, as a Markdown table."""

from statistics import median

from benchmarks.load import Round
from benchmarks.peers import PEERS

REFERENCE = next(iter(PEERS))


def table(work: str, rounds: dict[str, list[Round]]) -> str:
    """One work: peers by rate, with the ratio to bare mitmdump."""
    base = median(found.per_s for found in rounds[REFERENCE])
    lines = [
        f"### {work}",
        "",
        f"| | x {REFERENCE} | requests/s (lowest to highest round) | p50 ms | p99 ms |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(rounds, key=lambda peer: -median(found.per_s for found in rounds[peer])):
        found = rounds[name]
        rates = [each.per_s for each in found]
        lost = "".join(f" ({each.lost})" for each in found if each.lost)
        p50, p99 = median(each.p50_ms for each in found), median(each.p99_ms for each in found)
        lines.append(
            f"| {name}{lost} | {median(rates) / base:.2f} | {median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) "
            f"| {p50:.2f} | {p99:.2f} |"
        )
    return "\n".join(lines) + "\n"
