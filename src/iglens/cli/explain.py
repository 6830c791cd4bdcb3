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
    parse_baselines,
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
    contrast: o.Contrast = None,
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
    unit: o.Unit = None,
    baseline: o.Baseline = None,
    lens: o.Lens = "logit",
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
    sensitivity: o.Sensitivity = False,
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
    starts, wanted = parse_baselines(baseline), parse_unit(unit)
    readout, nodes = parse_precision(precision), parse_rule(rule)
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
    from ..explaining import Reader, estimator_of, prepare

    credit = estimator_of(estimator, n_steps, nodes)
    reader = Reader(wanted, starts, lens, credit, readout).check(decoder)
    with timer.stage("run"):
        asked = prepare(
            decoder,
            text,
            target=target,
            answer=answer,
            contrast=contrast,
            positions=positions,
            layers=layers,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            chat=chat,
            system=system,
            special_tokens=special_tokens,
        )
    with timer.stage("explain"):
        result = reader.of(decoder, asked, diagnostics=diagnostics, strict=strict)
        compared = reader.sensitivity(decoder, asked) if sensitivity else None
    with timer.stage("render"):
        write_all(result, outputs, quiet=quiet)
        if as_json:
            more = {} if compared is None else {"sensitivity": compared.to_json()}
            typer.echo(json.dumps(result.to_json() | more, ensure_ascii=False))
        else:
            show(result, quiet=quiet)
            if compared is not None:
                typer.echo(f"\n{compared}")
    timer.report()
