"""The parts of this package that files may name."""

from __future__ import annotations

PACKAGE = __name__.split(".")[0]

TABLE: dict[str, dict[str, str]] = {
    "Sampler": {
        "adaptive_dpm_solver": "samplers.adaptive.dpm_solver:AdaptiveDPMSolver",
        "churn": "samplers.churn:Churn",
        "ddim": "samplers.ddim:DDIM",
        "ddpm": "samplers.ddpm:DDPM",
        "dpm2": "samplers.dpm2:DPM2",
        "dpm_solver": "samplers.dpm_solver:DPMSolver",
        "euler": "samplers.euler:Euler",
        "heun": "samplers.heun:Heun",
        "karras_ve": "samplers.karras_ve:KarrasVE",
        "langevin": "samplers.langevin:Langevin",
        "lcm": "samplers.lcm:LCM",
        "lms": "samplers.lms:LMS",
        "reverse_diffusion": "samplers.reverse_diffusion:ReverseDiffusion",
        "rk45": "samplers.adaptive.rk45:RK45",
        "score_sde": "samplers.score_sde:ScoreSDE",
        "singlestep_dpm": "samplers.singlestep:SinglestepDPM",
        "unipc": "samplers.unipc:UniPC",
        "flow_heun": "interop.flow:FlowHeun",
        "lower_order_final": "interop.lower_order_final:LowerOrderFinal",
    },
    "NoiseSchedule": {
        "sigmoid": "process.schedules.gamma:Sigmoid",
        "cosine": "process.schedules.gamma:Cosine",
        "linear": "process.schedules.gamma:Linear",
        "ve": "process.schedules.ve:VE",
        "edm": "process.schedules.edm:EDM",
        "flow": "process.schedules.flow:Flow",
        "linear_beta": "process.schedules.beta:LinearBeta",
        "scaled_linear_beta": "process.schedules.beta:ScaledLinearBeta",
        "squaredcos_beta": "process.schedules.beta:SquaredCosBeta",
        "betas": "process.schedules.beta:Betas",
        "scaled": "process.schedules.base:Scaled",
    },
    "Objective": {
        "v": "process.objectives:V",
        "x0": "process.objectives:X0",
        "eps": "process.objectives:Eps",
        "previous_x": "process.objectives:PreviousX",
        "score": "process.objectives:Score",
        "velocity": "process.objectives:Velocity",
        "edm": "process.objectives:Preconditioned",
        "negated_eps": "process.objectives:NegatedEps",
    },
    "TimeInput": {
        "unit": "denoisers.preconditioning:UnitTime",
        "steps": "denoisers.preconditioning:StepTime",
        "log_snr": "denoisers.preconditioning:LogSNRTime",
        "c_noise": "denoisers.preconditioning:CNoise",
        "sigma": "denoisers.preconditioning:SigmaTime",
    },
    "InputScaling": {
        "unscaled": "denoisers.preconditioning:Unscaled",
        "unit_variance": "denoisers.preconditioning:UnitVariance",
        "measured_variance": "denoisers.preconditioning:MeasuredVariance",
    },
    "Loss": {
        "simple": "losses.simple:SimpleLoss",
        "bound": "losses.variational:VariationalLoss",
        "hybrid": "losses.hybrid:HybridLoss",
    },
    "LossWeight": {
        "min_snr": "losses.weights:MinSNR",
        "soft_min_snr": "losses.weights:SoftMinSNR",
        "p2": "losses.weights:P2",
        "edm": "losses.weights:EDMWeight",
        "uniform": "losses.weights:UniformOn",
        "likelihood": "losses.weights:Likelihood",
    },
    "TimeSampler": {
        "uniform": "losses.times:Uniform",
        "stratified": "losses.times:Stratified",
        "steps": "losses.times:Steps",
        "loss_aware": "losses.times:LossAware",
        "log_normal": "losses.times:LogNormal",
        "logit_normal": "losses.times:LogitNormal",
    },
    "Module": {  # networks
        "unet": "models.unet:UNet",
        "dit": "models.dit:DiT",
        "rin": "models.rin:RIN",
        "unet1d": "models.sequence.unet1d:UNet1D",
        "transformer1d": "models.sequence.transformer1d:Transformer1D",
        "residual_mlp": "models.sequence.residual_mlp:ResidualMLP",
    },
    "Trainable": {
        "gaussian_diffusion": "diffusion:GaussianDiffusion",
        "diffusion_policy": "policies.diffusion_policy:DiffusionPolicy",
        "behaviour_cloning": "policies.behaviour_cloning:BehaviourCloning",
    },
    "TrainingDataset": {
        "image_folder": "data.images.folder:ImageFolder",
        "shards": "data.shards.shards:Shards",
        "idx": "data.images.idx:IDX",
        "digits": "data.images.digits:Digits",
        "episode_windows": "policies.windows:EpisodeWindows",
        "fork_demonstrations": "policies.tasks.fork:ForkDemonstrations",
    },
    "DataSpace": {
        "images": "spaces.images:ImageSpace",
        "unbounded": "spaces.unbounded:Unbounded",
        "latents": "spaces.latents:LatentSpace",
        "actions": "spaces.actions:ActionSpace",
    },
    "Conditioner": {
        "labels": "conditions.labels:Labels",
        "images": "conditions.images:Images",
        "vectors": "conditions.vectors:Vectors",
        "tokens": "conditions.tokens:Tokens",
        "observations": "conditions.observations:Observations",
    },
    "FeatureExtractor": {
        "own": "evaluation.features.own:Own",
        "inception": "evaluation.features.fidelity:Inception",
        "dinov2": "evaluation.features.fidelity:DINOv2",
        "torchvision": "evaluation.features.torchvision:Torchvision",
        "onnx": "evaluation.features.onnx:ONNX",
    },
    "Guidance": {
        "classifier_free": "denoisers.guidance.classifier_free:ClassifierFree",
        "per_condition": "denoisers.guidance.per_condition:PerCondition",
        "interval": "denoisers.guidance.interval:Interval",
        "rescale": "denoisers.guidance.rescale:Rescale",
        "apg": "denoisers.guidance.apg:APG",
        "cfg_zero": "denoisers.guidance.cfg_zero:CFGZero",
        "autoguidance": "denoisers.guidance.autoguidance:Autoguidance",
        "classifier_guidance": "denoisers.guidance.classifier:ClassifierGuidance",
        "sum": "denoisers.guidance.sum:Sum",
    },
    "Normalizer": {"normalizer": "spaces.normalizer:Normalizer"},
}
"""Kind -> name -> module:Class. A file can name these classes without being trusted."""

NOUNS = {
    "Sampler": "sampler",
    "NoiseSchedule": "noise schedule",
    "Objective": "objective",
    "TimeInput": "time input",
    "InputScaling": "input scaling",
    "Loss": "loss",
    "LossWeight": "loss weight",
    "TimeSampler": "time sampler",
    "Module": "network",
    "Trainable": "model",
    "DataSpace": "data space",
    "Conditioner": "conditioner",
    "TrainingDataset": "dataset",
    "ImageDataset": "dataset of images",
    "FeatureExtractor": "feature extractor",
    "Guidance": "kind of guidance",
}


def with_article(word: str) -> str:
    """Returns a word with its indefinite article, such as 'an objective'."""
    return f"{'an' if word[0] in 'aeioAEIO' else 'a'} {word}"
