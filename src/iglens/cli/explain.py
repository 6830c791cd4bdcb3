"""`iglens explain`: the token x layer map of one text."""

import json

import typer

from . import options as o
from .loading import (
    AcceptLicence,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    Model,
    Revision,
    TrustRemoteCode,
    load_decoder,
)
from .output import checked_outputs, show, write_all
from .parse import (
    parse_baseline,
    parse_precision,
    parse_prompt,
    parse_rule,
    parse_sampling,
    parse_unit,
)
from .talk import Profile, quiet_libraries


def explain_command(
    prompt: o.PromptText,
    model: Model = None,
    target: o.Target = None,
    answer: o.Answer = None,
    max_new_tokens: o.MaxNewTokens = 8,
    sample: o.Sample = False,
    temperature: o.Temperature = 1.0,
    top_p: o.TopP = 1.0,
    seed: o.Seed = 0,
    chat: o.Chat = False,
    system: o.System = None,
    special_tokens: o.SpecialTokens = True,
    positions: o.Positions = "answer",
    layers: o.Layers = "all",
    unit: o.Unit = "probability",
    baseline: o.Baseline = "embedding",
    estimator: o.Estimator = "observed",
    n_steps: o.NSteps = 64,
    rule: o.Rule = "midpoint",
    precision: o.Precision = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    revision: Revision = None,
    attn_implementation: Attention = None,
    trust_remote_code: TrustRemoteCode = False,
    accept_licence: AcceptLicence = False,
    output: o.OutputFiles = None,
    output_format: o.OutputFormat = None,
    as_json: o.AsJson = False,
    diagnostics: o.Diagnostics = None,
    strict: o.Strict = True,
    quiet: o.Quiet = False,
    profile: o.ShowProfile = False,
    debug: o.Debug = False,
) -> None:
    """Show at which layers the probability of each token became readable.

    The model continues PROMPT and every token it adds is explained; --target and
    --answer explain another token or text instead. Credits add up exactly to the
    change of the token's probability, on a readout that is checked against the
    model's own distribution.
    """
    outputs = checked_outputs(output or [], output_format)
    text = parse_prompt(prompt)
    sampling = parse_sampling(sample, temperature, top_p, seed)
    start = parse_baseline(baseline)
    timer = Profile(enabled=profile)
    quiet_libraries()
    with timer.stage("load"):
        decoder = load_decoder(
            model,
            dtype=dtype,
            device=device,
            device_map=device_map,
            revision=revision,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            accept_licence=accept_licence,
            quiet=quiet,
        )
    from ..explaining import explain

    with timer.stage("explain"):
        result = explain(
            decoder,
            text,
            target=target,
            answer=answer,
            positions=positions,
            layers=layers,
            unit=parse_unit(unit),
            baseline=start,
            estimator=estimator,
            n_steps=n_steps,
            rule=parse_rule(rule),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            chat=chat,
            system=system,
            special_tokens=special_tokens,
            diagnostics=diagnostics,
            precision=parse_precision(precision),
            strict=strict,
        )
    with timer.stage("render"):
        write_all(result, outputs, quiet=quiet)
        if as_json:
            typer.echo(json.dumps(result.to_json(), ensure_ascii=False))
        else:
            show(result, quiet=quiet)
    timer.report()
