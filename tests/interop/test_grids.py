"""Grids of recipes against the timesteps of diffusers."""

import pytest
from parity import DEIS, DPM, LATENT, SPACINGS, diffusers

from diffusion_framework.interop import read_scheduler_config

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", DPM, DEIS]
)
def test_the_network_is_given_the_same_timesteps(name, spacing, monkeypatch):
    scheduler = getattr(diffusers, name)(**LATENT, **spacing)
    recipe = read_scheduler_config({**LATENT, **spacing, "_class_name": name})
    for steps in (4, 20, 50):
        scheduler.set_timesteps(steps)
        grid = recipe.grid(steps)
        timesteps = [recipe.timestep(now) for now, _ in grid]
        fractions = name.startswith("Euler") and spacing == SPACINGS[3]
        assert timesteps == pytest.approx(
            scheduler.timesteps.tolist(), abs=0.1 if fractions else 1e-6
        )


def test_trailing_makes_exactly_the_requested_number_of_steps():
    scheduler = diffusers.DDPMScheduler(timestep_spacing="trailing")
    recipe = read_scheduler_config({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing"})
    differing = []
    for steps in range(1, 400):
        scheduler.set_timesteps(steps)
        assert steps > 60 or len(recipe.grid(steps)) == steps
        differing += [steps] if len(scheduler.timesteps) != steps else []
    for steps in differing[:3]:
        assert len(recipe.grid(steps)) == steps
    assert differing


def test_impossible_grids_are_refused():
    recipe = read_scheduler_config({"_class_name": "LCMScheduler"})
    with pytest.raises(ValueError, match="original_inference_steps"):
        recipe.grid(51)
    recipe = read_scheduler_config({"_class_name": "DDIMScheduler", "steps_offset": 1})
    with pytest.raises(ValueError, match="steps_offset"):
        recipe.grid(1000)
    with pytest.raises(ValueError, match="1000 training steps, got 1001"):
        recipe.grid(1001)
    for name in (DPM, "DDIMScheduler", "EulerDiscreteScheduler", "KarrasVeScheduler"):
        with pytest.raises(ValueError, match="from 1 to 100000"):
            read_scheduler_config({"_class_name": name}).grid(0)
        assert len(read_scheduler_config({"_class_name": name}).grid(1)) == 1
    recipe = read_scheduler_config({"_class_name": "DDIMScheduler", "set_alpha_to_one": False})
    with pytest.raises(ValueError, match="take more steps"):
        recipe.grid(1)
