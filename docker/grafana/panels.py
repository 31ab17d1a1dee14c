"""The rows and charts of the Grafana dashboard, with their queries."""

from __future__ import annotations

from dataclasses import dataclass

MODEL = 'model=~"$model"'
RATE = "$__rate_interval"
GIGA = "1e9"


@dataclass(frozen=True)
class Panel:
    """One chart: its lines as (PromQL, legend), the unit as Grafana names it, and how it is drawn."""

    title: str
    lines: tuple[tuple[str, str], ...]
    unit: str = "short"
    stacked: bool = False
    help: str = ""


@dataclass(frozen=True)
class Row:
    """A heading with its panels."""

    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, *by: str, where: str = MODEL) -> str:
    """The rate a second of `metric`, summed over all labels but `by`."""
    return f"sum by ({', '.join(by)}) (rate({metric}{{{where}}}[{RATE}]))"


def quantile(share: float, metric: str, *by: str, where: str = MODEL) -> str:
    """A quantile of the histogram `metric`."""
    return f"histogram_quantile({share}, {rate(metric + '_bucket', *by, 'le', where=where)})"


def mean(metric: str, *by: str, where: str = MODEL) -> str:
    """The mean of the histogram `metric`."""
    return (
        f"{rate(metric + '_sum', *by, where=where)} / {rate(metric + '_count', *by, where=where)}"
    )


LATENCY = "offramp_request_duration_seconds"
ROWS = (
    Row(
        "Traffic",
        (
            Panel(
                "Requests",
                ((rate("offramp_requests_total", "outcome"), "{{outcome}}"),),
                "reqps",
                True,
            ),
            Panel("Images answered", ((rate("offramp_exits_total", "model"), "{{model}}"),), "ops"),
            Panel(
                "Servers up",
                (('sum(up{job="offramp"})', "up"), ('count(up{job="offramp"})', "known")),
            ),
        ),
    ),
    Row(
        "Exits",
        (
            Panel(
                "Share leaving at each exit",
                (
                    (
                        f"{rate('offramp_exits_total', 'exit')} / ignoring (exit) group_left "
                        f"sum(rate(offramp_exits_total{{{MODEL}}}[{RATE}]))",
                        "exit {{exit}}",
                    ),
                ),
                "percentunit",
                True,
                "Earlier exits cost less. A shift means that the images or the policy changed.",
            ),
            Panel(
                "Mean confidence",
                ((mean("offramp_confidence", "exit"), "exit {{exit}}"),),
                "percentunit",
            ),
            Panel(
                "Thresholds",
                (
                    (
                        f"max by (model, exit) (offramp_threshold{{{MODEL}}})",
                        "{{model}} exit {{exit}}",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "Latency",
        (
            Panel(
                "All requests",
                tuple((quantile(q, LATENCY), f"p{100 * q:.0f}") for q in (0.5, 0.95, 0.99)),
                "s",
            ),
            Panel("p50 by exit", ((quantile(0.5, LATENCY, "exit"), "exit {{exit}}"),), "s"),
            Panel("p99 by exit", ((quantile(0.99, LATENCY, "exit"), "exit {{exit}}"),), "s"),
            Panel(
                "One run of a stage",
                ((mean("offramp_stage_duration_seconds", "stage"), "stage {{stage}}"),),
                "s",
            ),
            Panel(
                "Decoding",
                ((quantile(0.99, "offramp_decode_duration_seconds", where=""), "p99"),),
                "s",
            ),
        ),
    ),
    Row(
        "Queues and batches",
        (
            Panel(
                "Waiting",
                (("sum by (stage) (offramp_queue_depth)", "stage {{stage}}"),),
                stacked=True,
            ),
            Panel(
                "Wait, p99",
                (
                    (
                        quantile(0.99, "offramp_queue_duration_seconds", "stage", where=""),
                        "stage {{stage}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Images in a batch, mean",
                ((mean("offramp_stage_batch_size", "stage"), "stage {{stage}}"),),
                help="Above 1, requests share runs of a stage.",
            ),
        ),
    ),
    Row(
        "Refusals",
        (
            Panel(
                "By reason",
                ((rate("offramp_rejected_total", "reason", where=""), "{{reason}}"),),
                "reqps",
            ),
            Panel(
                "Deadlines that cut depth or answer",
                (("sum(rate(offramp_expired_total[$__rate_interval]))", "expired"),),
                "ops",
            ),
            Panel(
                "Share refused",
                (
                    (
                        f'(sum(rate(offramp_requests_total{{{MODEL}, outcome="over_capacity"}}[{RATE}]))'
                        " or vector(0)) "
                        f"/ sum(rate(offramp_requests_total{{{MODEL}}}[{RATE}]))",
                        "over capacity",
                    ),
                ),
                "percentunit",
            ),
        ),
    ),
    Row(
        "Accuracy guard-rails",
        (
            Panel(
                "Mean confidence over an hour",
                (("offramp:confidence:mean1h", "{{model}}"),),
                "percentunit",
                help="Accuracy cannot be measured without labels; confidence changes when the images do.",
            ),
            Panel(
                "Exit shares over an hour",
                (("offramp:exit_share:rate1h", "{{model}} exit {{exit}}"),),
                "percentunit",
            ),
            Panel(
                "Share without a label",
                (
                    (
                        f"(sum(rate(offramp_unsure_total{{{MODEL}}}[{RATE}])) or vector(0)) "
                        f"/ sum(rate(offramp_exits_total{{{MODEL}}}[{RATE}]))",
                        "unsure",
                    ),
                ),
                "percentunit",
                help="Images whose confidence is below the policy's reject_below.",
            ),
            Panel(
                "Evidence of drift",
                (
                    (
                        f"max by (model, signal) (offramp_drift_evidence{{{MODEL}}})",
                        "{{model}} {{signal}}",
                    ),
                ),
                "percentunit",
                help="Tests of the answers against the calibration table; at 100 % there is an alarm.",
            ),
            Panel(
                "Policy revision",
                ((f"max by (model) (offramp_policy_revision{{{MODEL}}})", "{{model}}"),),
            ),
        ),
    ),
    Row(
        "Shadow checks",
        (
            Panel(
                "Agreement with full depth",
                (
                    (
                        f"min by (model, exit) (offramp_agreement_limit{{{MODEL}}})",
                        "{{model}} exit {{exit}}, upper limit",
                    ),
                    (
                        f"max by (model, exit) (offramp_agreement_promised{{{MODEL}}})",
                        "{{model}} exit {{exit}}, promised",
                    ),
                ),
                "percentunit",
                help="An exit whose upper limit falls below its promise gets a higher threshold.",
            ),
            Panel(
                "Images checked",
                (
                    (
                        rate("offramp_shadows_total", "exit", "agrees"),
                        "exit {{exit}}, agrees: {{agrees}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Thresholds raised in an hour",
                (
                    (
                        f"sum by (model, exit) (increase(offramp_threshold_raises_total{{{MODEL}}}[1h]))",
                        "{{model}} exit {{exit}}",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "Budgets",
        (
            Panel(
                "Multiply-accumulates a second, in billions",
                (
                    (
                        f"{rate('offramp_budget_macs_total', 'client', where='')} / {GIGA}",
                        "{{client}}",
                    ),
                ),
                stacked=True,
                help="What clients spend. Only with offramp serve --budgets.",
            ),
            Panel(
                "Share of requests that a budget limited",
                (
                    (
                        "sum by (client) "
                        f'(rate(offramp_budget_requests_total{{limited="true"}}[{RATE}])) '
                        f"/ {rate('offramp_budget_requests_total', 'client', where='')}",
                        "{{client}}",
                    ),
                ),
                "percentunit",
                help="These got shallower answers.",
            ),
            Panel(
                "Multiply-accumulates available at once, in billions",
                ((f"min by (client) (offramp_budget_available_macs) / {GIGA}", "{{client}}"),),
                help="Of clients with a limit; at 0 their answers are shallower.",
            ),
        ),
    ),
)
