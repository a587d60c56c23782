"""Reading of scheduler configs, and the intended differences from diffusers."""

import json

import pytest
import torch
from oracles import GaussianOracle
from parity import (
    DEIS,
    DPM,
    END,
    FLOW_EULER,
    KARRAS,
    LATENT,
    LCM,
    NO_CLIP,
    SHAPE,
    SPACINGS,
    TYPES,
    UNIPC,
    Draws,
    OracleNetwork,
    compare,
    difference,
    diffusers,
    exact_errors,
    run_recipe,
    start,
)

from diffusion_framework.interop import read_scheduler_config
from diffusion_framework.samplers import trajectory

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_dpm_solver_of_order_three_converges_with_order_three(monkeypatch):
    signal = torch.sigmoid(torch.linspace(6, -6, 321, dtype=torch.float64))  # steps even in log-SNR
    betas = 1 - signal / torch.cat([torch.ones(1), signal[:-1]])
    config = {"trained_betas": betas.tolist(), "num_train_timesteps": 321, "solver_order": 3, **END}
    coarse, fine = (exact_errors(DPM, config, steps, monkeypatch) for steps in (40, 80))
    assert coarse[0] < coarse[1] and fine[0] < fine[1]
    assert fine[0] < coarse[0] / 6


@pytest.mark.parametrize("skip", [True, False])
def test_pndm_ends_closer_to_the_exact_solution_than_in_diffusers(skip, monkeypatch):
    config = {**LATENT, "skip_prk_steps": skip, "steps_offset": 1}
    for steps in (20, 50):
        mine, other = exact_errors("PNDMScheduler", config, steps, monkeypatch)
        assert mine < other


def test_ddim_steps_to_where_the_next_step_starts(monkeypatch):
    config = {**NO_CLIP, **LATENT, "timestep_spacing": "linspace"}
    mine, other = exact_errors("DDIMScheduler", config, 300, monkeypatch)
    assert mine < other / 3


def test_ddpm_adds_no_noise_in_its_last_step(monkeypatch):
    config = {**NO_CLIP, "timestep_spacing": "trailing", "variance_type": "fixed_large"}
    off, *_ = compare("DDPMScheduler", config, 20, monkeypatch, oracle=GaussianOracle(std=0.0))
    assert off > 0.01
    recipe = read_scheduler_config({**config, "_class_name": "DDPMScheduler"})
    network = OracleNetwork(recipe, GaussianOracle(std=0.0))
    assert torch.allclose(
        run_recipe(recipe, network, start(), 20)[0], torch.full(SHAPE, 0.3, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", DPM, UNIPC]
)
def test_zero_terminal_snr_leaves_no_signal_and_nearly_agrees(name, monkeypatch):
    """At the last process step, alpha² is 0 here and 2⁻²⁴ in diffusers."""
    config = {**LATENT, **SPACINGS[2], **TYPES[2], "rescale_betas_zero_snr": True}
    off, _, grid, _ = compare(name, config, 20, monkeypatch)
    assert grid.start.alpha == 0
    assert off < 1e-3


def test_lms_started_in_mid_schedule_ends_closer_to_the_exact_solution(monkeypatch):
    recipe = read_scheduler_config({"_class_name": "LMSDiscreteScheduler", **LATENT, **KARRAS})
    oracle = GaussianOracle()
    network = OracleNetwork(recipe, oracle)
    scheduler = diffusers.LMSDiscreteScheduler(**LATENT, **KARRAS)
    scheduler.set_timesteps(40)
    grid = recipe.grid(40)[20:]
    x = start()
    *_, last = trajectory(recipe.sampler, network, x, grid, Draws())
    other = x / grid.start.alpha
    for t, (now, _) in list(zip(scheduler.timesteps, recipe.grid(40), strict=True))[20:]:
        other = scheduler.step(
            network.output(scheduler.scale_model_input(other, t), now), t, other
        ).prev_sample
    exact = oracle.flow(x, grid.start, grid.end)
    assert difference(last.x, exact) < difference(other, exact) / 2


BAD = [
    ({"_class_name": "NoScheduler"}, "known scheduler, got _class_name='NoScheduler'"),
    ({}, "_class_name=None"),
    ({"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 0.5}, "at least 1"),
    ({"_class_name": "DDIMScheduler", "novelty": 1}, "novelty=1"),
    ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "'laplace'"),
    ({"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}, "'flow_prediction'"),
    ({"_class_name": "DDIMScheduler", "timestep_spacing": "random"}, "'random'"),
    (
        {"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]},
        "trained_betas, one for each process step, got 2",
    ),
    ({"_class_name": "DDPMScheduler", "variance_type": "free"}, "learned_range, got 'free'"),
    ({"_class_name": DPM, "variance_type": "fixed_small"}, "'fixed_small'"),
    ({"_class_name": DPM, "solver_type": "euler"}, "solver_type to be one of .*'euler'"),
    ({"_class_name": UNIPC, "solver_type": "bh3"}, "solver_type to be one of bh1, .*'bh3'"),
    ({"_class_name": DEIS, "solver_type": "rho"}, "solver_type to be one of logrho, .*'rho'"),
    ({"_class_name": "FlaxNoScheduler"}, "known scheduler, got _class_name='FlaxNoScheduler'"),
    ({"_class_name": "ScoreSdeVeScheduler", "sampling_eps": 2.0}, r"sampling_eps in \[0, 1\]"),
    *[
        ({"_class_name": name, "rescale_betas_zero_snr": True}, "determines the clean data")
        for name in ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", DPM, UNIPC, LCM)
    ],
    (
        {"_class_name": DPM, "trained_betas": [0.1, 1.0], "num_train_timesteps": 2},
        "determines the clean data",
    ),
    ({"_class_name": DPM, "algorithm_type": "sde-dpmsolver"}, "'sde-dpmsolver'"),
    ({"_class_name": DPM, "euler_at_final": True, **END}, "euler_at_final"),
    ({"_class_name": DPM, **KARRAS, "use_lu_lambdas": True}, "use_karras_sigmas, use_lu_lambdas"),
    ({"_class_name": DPM, "use_flow_sigmas": True, **END}, "set final_sigmas_type='zero'"),
    ({"_class_name": DPM, "prediction_type": "flow_prediction"}, "'flow_prediction'"),
    ({"_class_name": DPM, "use_flow_sigmas": True, **KARRAS}, "use_karras_sigmas, use_flow_sigmas"),
    (
        {"_class_name": FLOW_EULER, "use_dynamic_shifting": True},
        "Expected mu for use_dynamic_shifting",
    ),
    (
        {"_class_name": FLOW_EULER, "use_dynamic_shifting": True, "time_shift_type": "cubic"},
        "'cubic'",
    ),
    ({"_class_name": FLOW_EULER, "stochastic_sampling": True}, "stochastic_sampling=True"),
    ({"_class_name": DPM, "final_sigmas_type": "none"}, "'none'"),
    ({"_class_name": UNIPC, "predict_x0": False}, "predict_x0=False"),
    ({"_class_name": UNIPC, "disable_corrector": [0]}, r"disable_corrector=\[0\]"),
    (
        {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
        "timestep_type='continuous'",
    ),
    (
        {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"},
        "interpolation_type='log_linear'",
    ),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=lambda value: None)
def test_options_without_counterpart_are_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_scheduler_config(config)
    assert "\n" not in str(caught.value)


def test_flax_schedulers_are_read_by_their_name():
    for name in ("DDPM", "DDIM", "PNDM", "LMSDiscrete", "EulerDiscrete", "ScoreSdeVe", "KarrasVe"):
        config = {"_class_name": f"Flax{name}Scheduler"}
        assert read_scheduler_config(config) == read_scheduler_config(
            {"_class_name": f"{name}Scheduler"}
        )


def test_solver_types_of_other_schedulers_stand_for_the_default_as_in_diffusers():
    for name, other in ((DPM, "bh2"), (DPM, "logrho"), (UNIPC, "heun"), (DEIS, "midpoint")):
        config = {"_class_name": name, "solver_type": other}
        assert read_scheduler_config(config) == read_scheduler_config({"_class_name": name})


def test_solvers_ignore_a_learned_variance():
    for kind in ("learned", "learned_range"):
        config = {"_class_name": DPM, "variance_type": kind}
        assert read_scheduler_config(config) == read_scheduler_config({"_class_name": DPM})


@pytest.mark.parametrize(("eps", "steps"), [(1e-5, 9), (0.1, 10), (0.5, 7), (0.9, 4), (1.0, 3)])
def test_score_sde_ve_visits_the_sigmas_of_diffusers_once_each(eps, steps):
    scheduler = diffusers.ScoreSdeVeScheduler(sampling_eps=eps)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    indices = [int(t.item() * (steps - 1) + 1e-6) for t in scheduler.timesteps]
    sigmas = [0.0, *scheduler.discrete_sigmas.tolist()]
    grid = read_scheduler_config({**scheduler.config, "_class_name": "ScoreSdeVeScheduler"}).grid(
        steps
    )
    wanted = [sigmas[i + 1] for i in dict.fromkeys(indices)] + [sigmas[min(indices)]]
    assert [now.sigma for now, _ in grid] + [grid.end.sigma] == pytest.approx(wanted, rel=1e-5)


def test_mu_is_refused_without_dynamic_shifting():
    with pytest.raises(ValueError, match="mu with use_dynamic_shifting only, got mu=0.5"):
        read_scheduler_config({"_class_name": FLOW_EULER}, mu=0.5)


def test_a_config_is_found_as_file_folder_or_pipeline(tmp_path):
    config = {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        **LATENT,
        "clip_sample": False,
    }
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(config))
    for place in (path, str(path.parent), tmp_path):
        assert read_scheduler_config(place) == read_scheduler_config(config)


def test_files_that_hold_no_config_are_refused(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="scheduler_config.json: expected a JSON file"):
        read_scheduler_config(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="scheduler_config.json: expected a JSON object, got list"):
        read_scheduler_config(path)
    with pytest.raises(ValueError, match="expected a JSON file"):
        read_scheduler_config(tmp_path / "nowhere")
