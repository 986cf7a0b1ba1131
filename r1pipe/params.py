"""The typed mirror of `params.yaml`: every number that a person may change.

No value has a default here: what a run used stands in `params.yaml`, where `dvc params diff` sees it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from r1pipe.errors import MissingError, ParamsError

Task = Literal["qa", "situated", "grounding", "captioning", "dialogue", "planning", "description"]
Split = Literal["train", "val", "test"]
Count = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of `params.yaml`: no unknown keys, no edits after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    """CPU threads of torch and numba; part of the parameters because it can change the last bit of a sum."""


class Paths(Section):
    """Where things lie, relative to the repository's root; `dvc.yaml` interpolates these."""

    scannet: Path | None
    """A directory in ScanNet's layout (`scans/`, `meta/`); null for procedural rooms alone."""

    raw: Path
    manifest: Path
    scenes: Path
    samples: Path
    views: Path
    backbones: Path
    features: Path
    drafts: Path
    rejects: Path
    cot: Path
    release: Path
    """The same texts as a dataset for others, with its card."""

    data_docs: Path
    sft: Path
    grpo: Path
    control: Path
    predictions: Path
    metrics: Path
    logs: Path
    ablations: Path
    """Tables of `r1pipe ablate`, kept in git: each says the commit that it was measured at."""

    report: Path
    bento: Path


class Launch(Section):
    """How the stages that train the language model are spread over processes; each has `base.threads` of its own."""

    processes: Count
    """1 runs the stage itself; more go through `accelerate launch`, one a GPU where there are any."""

    accelerate: Path
    """Accelerate's configuration of those processes: DDP, DeepSpeed or FSDP."""


class Think(Section):
    """Which tasks ask for a chain of thought before the answer."""

    qa: bool
    situated: bool
    grounding: bool
    captioning: bool
    dialogue: bool
    planning: bool
    description: bool

    def on(self, task: Task) -> bool:
        """Whether this task thinks first."""
        return bool(self.model_dump()[task])


class Rooms(Section):
    """How many procedural rooms a split has."""

    train: Annotated[int, Field(ge=0)]
    val: Annotated[int, Field(ge=0)]
    test: Annotated[int, Field(ge=0)]


class Collect(Section):
    """Stage `collect`."""

    rooms: Rooms
    points_per_m2: Positive
    """Density of the scanned surface before occlusion."""

    frames_per_room: Annotated[int, Field(ge=0)]
    """RGB-D frames kept along the scanner's path."""

    frame_size: tuple[Count, Count]
    """Width and height, pixels."""


class Prepare(Section):
    """Stage `prepare`."""

    voxel_size: Positive
    """Edge of the grid, metres, on which a cloud is thinned to one point a cell; boxes come from all points."""


class Render(Section):
    """Stage `render`."""

    size: tuple[Count, Count]
    """Width and height of a view, pixels."""

    fov: Annotated[float, Field(gt=0, lt=180)]
    """Horizontal field of view, degrees."""

    num_ring: Count
    """Candidate cameras on the ring at eye height."""

    eye_height: Positive
    """Metres above the floor."""

    max_frames: Annotated[int, Field(ge=0)]
    """Real RGB-D frames that join the candidates, at most; the count of candidates is the same for every scene."""

    point_radius: Annotated[int, Field(ge=0)]
    """Half-width of a splat, pixels."""

    fill_holes: bool
    """Whether gaps between the splats of a surface show that surface instead of what is behind it."""


class Backbone(Section):
    """A frozen encoder: trained here on rendered views, or loaded by name."""

    source: Literal["train", "load"]
    model: str | None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.source == "load" and self.model is None:
            raise ValueError("source load needs a model by name or path")
        return self


class ClipBackbone(Backbone):
    """CLIP, through open_clip."""

    model: str | None
    """open_clip's model name, or `local-dir:` and a folder, where `source` is `load`."""

    pretrained: str | None
    """open_clip's tag or a local file where `source` is `load`."""

    embed_dim: Count
    image_width: Count
    image_layers: Count
    text_width: Count
    text_layers: Count
    patch_size: Count
    context_length: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class ImageBackbone(Backbone):
    """SigLIP-2's vision tower, through transformers."""

    model: str | None
    """Hub id or local path where `source` is `load`."""

    revision: str | None
    hidden_size: Count
    layers: Count
    patch_size: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class DepthBackbone(Backbone):
    """Depth-Anything v2, through transformers."""

    model: str | None
    """Hub id or local path where `source` is `load`."""

    revision: str | None
    hidden_size: Count
    layers: Count
    patch_size: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class PointsBackbone(Section):
    """Point Transformer v3, with the detector's heads on top."""

    source: Literal["train", "load"]
    weights: str | None
    """A folder that `PointEncoder.save` wrote, where `source` is `load`."""

    voxel_size: Positive
    enc_depths: tuple[Annotated[int, Field(ge=0)], ...]
    enc_channels: tuple[Count, ...]
    enc_num_head: tuple[Count, ...]
    dec_depths: tuple[Annotated[int, Field(ge=0)], ...]
    dec_channels: tuple[Count, ...]
    dec_num_head: tuple[Count, ...]
    patch_size: Count
    stride: tuple[Count, ...]
    steps: Count
    batch_size: Count
    """Scenes a step."""

    drop_path: Share
    """Share of rows whose branch is dropped in the deepest block."""

    learning_rate: Positive


class Detector(Section):
    """From voxels that vote to boxes."""

    classes: Literal["label", "nyu40"]
    """What a class is: a raw label, or a NYU40 class."""

    min_class_scenes: Count
    """A class has to occur in so many train scenes; rarer ones are no class."""

    link_distance: Positive
    """Points of like colour nearer than this, metres, are of one patch."""

    link_colour: Positive
    """What like colour is: Euclidean distance in 0..255."""

    group_iou: Share
    """A patch joins another whose voted box its own vote overlaps at least so much."""

    min_points: Count
    """Points of a patch, at least."""

    score_threshold: Share
    nms_iou: Share


class Backbones(Section):
    """Stage `backbones`."""

    clip: ClipBackbone
    image: ImageBackbone
    depth: DepthBackbone
    points: PointsBackbone
    detector: Detector


class Encode(Section):
    """Stage `encode`."""

    num_points: Count
    """Tokens that a cloud's features are pooled to."""

    batch_size: Count
    """Views a forward pass."""

    proposals: Path | None
    """A directory of masks made elsewhere, `<scene_id>.npz` as Mask3D exports them, in place of the detector's own
    grouping; null for the latter. DVC knows it by its name: name another when the files change."""


class Faults(Section):
    """How often the scripted teacher commits each fault, as a share of the samples."""

    format: Share
    length: Share
    steps: Share
    target: Share
    consistency: Share


class Price(Section):
    """What a model costs, dollars a million tokens."""

    prompt: NonNegative
    output: NonNegative
    """Of the answer and of the service's own thinking."""


class Gemini(Section):
    """The teacher `gemini`, through google-genai; keys are in the environment (`r1pipe.synthesis.service`)."""

    model: str
    temperature: NonNegative
    thinking_budget: Annotated[int, Field(ge=-1)]
    """Tokens of the service's own thinking; -1 leaves the number to it."""

    max_output_tokens: Count
    """Thinking and answer together, as the service counts."""

    views: Annotated[int, Field(ge=0)]
    """Pictures of the room that go with a question; 0 for words alone."""

    requests_per_second: Positive
    """The quota of the key or project; repeated attempts count."""

    timeout_s: Positive
    attempts: Count
    """Of one request, where the service is busy or the connection breaks; then its sample is rejected as unavailable."""

    backoff_s: Positive
    """The wait before the second attempt; it doubles from one to the next, with jitter."""

    max_wait_s: Positive
    """The longest wait; a service that asks for a longer one stops the run."""

    batch: bool
    """Whether to ask in batch jobs: answers come within a day, at `batch_price` of the price."""

    batch_price: Share
    batch_poll_s: Positive
    """Between two looks at the jobs."""

    budget: Positive | None
    """Dollars that the ledger's requests may cost in all; null for no limit."""

    prices: dict[str, Price]
    """By model."""

    base_url: str | None
    """Another server that speaks its REST API; null for Google's."""

    ledger: Path
    """A SQLite file with every request and reply; no output of DVC's, because it is paid for."""

    @property
    def price(self) -> Price:
        """Of the model."""
        return self.prices[self.model]

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        """Refuse a model whose cost nobody could tell."""
        if self.model not in self.prices:
            known = ", ".join(self.prices) or "none"
            raise ValueError(f"model {self.model} needs its price under synthesize.gemini.prices, which has {known}")
        return self


class Synthesize(Section):
    """Stage `synthesize`."""

    teacher: Literal["scripted", "gemini", "replay"]
    faults: Faults
    gemini: Gemini
    replay: Path | None
    """The JSONL file that the teacher `replay` repeats: `scene_id`, `question`, `cot`."""

    concurrency: Count
    """Requests in flight at once."""

    @model_validator(mode="after")
    def _replay_has_a_file(self) -> Self:
        """Refuse a teacher that has nothing to repeat."""
        if self.teacher == "replay" and self.replay is None:
            raise ValueError("teacher replay needs a file under synthesize.replay")
        return self


class Filters(Section):
    """What a chain of thought must be to be kept."""

    min_think_words: Count
    max_think_words: Count
    min_steps: Count
    min_answer_words: Count
    max_answer_words: Count
    consistency: Share
    """Least 1 - normalised Levenshtein distance between the answer and the one drawn from the reasoning alone."""


class Probe(Section):
    """Texts that the scripted teacher writes only to measure the filters; they are not kept."""

    samples: Annotated[int, Field(ge=0)]
    """How many; 0 measures nothing."""

    fault_rate: Share
    """The share with a fault, of each kind."""


class Validate(Section):
    """Stage `validate`."""

    filters: Filters
    max_reject_rate: Share
    """Above it the gate warns."""

    profile: Path | None
    """What `r1pipe profile` wrote; the gate warns of drift from it. In `profiles/`, so that DVC sees it change."""

    max_drift: Positive
    """The largest Kullback-Leibler divergence of a column from the profile, nats."""

    probe: Probe


Modality = Literal["image", "depth", "points"]
"""SigLIP-2 features of views, Depth-Anything features of views, and what comes of the cloud: objects and regions."""


class Model(Section):
    """The 3D-R1 model's shape; shared by `sft` and everything after it."""

    language: str | None
    """Hub id or local path of the language model; null builds one from the sizes below."""

    revision: str | None
    vocabulary: Count
    """Size of the tokenizer trained where `language` is null."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    initializer_range: Positive
    """About 1/sqrt(hidden_size): at the usual 0.02 attention in a narrow model never leaves the uniform plateau."""

    num_objects: Annotated[int, Field(gt=0, le=1000)]
    num_views: Count
    """Views that the selector keeps."""

    view_strategy: Literal["learnt", "all", "horizontal", "bottom", "random", "fixed"]
    view_weights: tuple[float, float, float]
    """w_t, w_c and w_clip of the strategy `fixed`; w_c + w_clip = 1."""

    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)]
    """What of a scene the language model sees beside the question."""

    @model_validator(mode="after")
    def _view_weights_sum_up(self) -> Self:
        _, image3d, clip = self.view_weights
        if abs(image3d + clip - 1) > 1e-6:
            raise ValueError(f"view_weights need w_c + w_clip = 1, found {image3d:g} + {clip:g}")
        return self


class Lora(Section):
    """Low-rank adapters on q, k, v, o, gate, up and down of the last blocks."""

    r: Count
    alpha: Count
    dropout: Share
    last_blocks: Count


class Training(Section):
    """What SFT and GRPO share."""

    tasks: tuple[Task, ...]
    lora: Lora | None
    """Null trains every weight of the language model."""

    max_steps: Count
    batch_size: Count
    """Sequences an optimizer step."""

    device_batch_size: Count | None
    """Sequences a forward pass on one device, as its memory allows; null takes a process's whole share at once."""

    learning_rate: Positive
    bf16: bool
    gradient_checkpointing: bool
    save_steps: Count
    """Steps between two checkpoints to resume from."""


class Sft(Training):
    """Stage `sft`."""

    alignment_steps: Annotated[int, Field(ge=0)]
    """Steps that regress the object projector onto word embeddings before SFT."""

    min_learning_rate: NonNegative
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    adam_beta2: Share
    view_weight_pull: NonNegative
    """Strength of the L2 term that pulls the selector's w_t to 0.3."""


class RewardWeights(Section):
    """Weights of the rewards in their sum; the last three are off at 0."""

    format: NonNegative
    perception: NonNegative
    semantic: NonNegative
    exact_match: NonNegative
    length: NonNegative
    repetition: NonNegative


class Grpo(Training):
    """Stage `grpo`."""

    group_size: Annotated[int, Field(ge=2)]
    """Completions of one prompt, compared with each other."""

    beta: NonNegative
    """Weight of the KL divergence from the reference; above 0 it needs `lora`, whose absence is the reference."""

    temperature: Positive
    max_completion_length: Count
    adam_beta2: Share
    adam_epsilon: Positive
    """At the size of the gradients themselves, weights that the rewards say little about hardly move."""

    gain_learning_rate: Positive | None
    """Of the weights of normalisation layers; null for that of all others. Adapters leave these weights alone."""

    eval_steps: Count
    """Steps between two measurements of the reward on held-out prompts."""

    eval_prompts: Count
    """Prompts of the val split that are measured, always the same ones."""

    reward_weights: RewardWeights
    length_limit: Count
    """Words of a completion up to which the reward `length` is whole; at twice as many it is 0."""

    zero_std_alarm_steps: Count
    """Logged steps in a row with a reward's standard deviation at 0 that raise the alarm."""

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Self:
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of group_size ({self.group_size})")
        if self.beta > 0 and self.lora is None:
            raise ValueError(f"beta ({self.beta}) above 0 needs lora, found null")
        if self.gain_learning_rate is not None and self.lora is not None:
            raise ValueError(f"gain_learning_rate ({self.gain_learning_rate}) needs lora null: adapters train no gains")
        return self


class Control(Section):
    """Stage `control`: SFT continued for GRPO's steps, on GRPO's tasks, without RL."""

    batch_size: Count
    learning_rate: Positive
    """Its own: what suits a reward's gradient does not suit a likelihood's."""


class Evaluate(Section):
    """Stage `evaluate`."""

    split: Split
    tasks: tuple[Literal["qa", "grounding", "captioning"], ...]
    batch_size: Count
    max_new_tokens: Count
    num_samples: Count | None
    """At most so many samples a task, the first by id hash; null for all."""

    bootstrap: Count
    """Resamples behind each 95 % interval."""

    reward_completions: Count
    """Completions a question, sampled at GRPO's temperature, behind the mean reward."""


class Report(Section):
    """Stage `report`."""

    num_examples: Count
    """Questions chosen by lot."""

    num_ranked: int = Field(ge=0)
    """Of each task's questions the best answered, and as many of the worst."""


class Package(Section):
    """Stage `package`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """What the Bento is called."""

    num_rooms: Count
    """Rooms of the evaluated split that travel with the model, the first by id."""


class Serve(Section):
    """What a server takes on at once: `bentoml serve`."""

    max_batch_size: Count
    """Questions a forward pass, at most."""

    max_waiting: Count
    """Further questions that wait; one more is told to come again later."""

    max_prompt_tokens: Count
    """Of question and history together."""

    timeout_s: Annotated[float, Field(gt=0)]
    """From the question to the end of its answer."""


class Timeouts(Section):
    """Seconds after which a stage is stopped, by where it runs; training keeps the step that it is stopped behind."""

    cpu: Positive
    gpu: Positive


class Gate(Section):
    """What a tuned model has to beat the promoted one by: the paired 95 % interval of its gain lies above `min_gain`."""

    task: Literal["qa", "grounding", "captioning"]
    metric: str
    """As `r1pipe compare` names it."""

    min_gain: NonNegative
    """On the metric's scale, 0 to 100."""


class Flows(Section):
    """How flows run the stages; nothing that a stage computes depends on it."""

    timeout_s: Timeouts
    lost_after_s: Annotated[float, Field(ge=60)]
    """A run without a heartbeat for so long counts as crashed; a heartbeat comes every 30 seconds."""

    takeovers: Annotated[int, Field(ge=0)]
    """How often a stage whose worker was lost is given to another."""

    network_attempts: Count
    """Of fetching the commit, and of pulling and pushing data."""

    network_wait_s: Positive
    """Between two such attempts."""

    checkout_wait_s: NonNegative
    """How long a run waits for another one on the same checkout; then it is refused."""

    gpu_stages: Count
    """GPU stages that run at once, over all flows of a server."""

    gate: Gate


class Params(Section):
    """All of `params.yaml`."""

    base: Base
    paths: Paths
    launch: Launch
    think: Think
    collect: Collect
    prepare: Prepare
    render: Render
    backbones: Backbones
    encode: Encode
    synthesize: Synthesize
    validate_: Validate = Field(alias="validate")
    model: Model
    sft: Sft
    grpo: Grpo
    control: Control
    evaluate: Evaluate
    report: Report
    package: Package
    serve: Serve
    flows: Flows

    @model_validator(mode="after")
    def _processes_share_the_batch(self) -> Self:
        batches = {"sft": self.sft.batch_size, "grpo": self.grpo.batch_size, "control": self.control.batch_size}
        devices = {"sft": self.sft, "grpo": self.grpo, "control": self.sft}
        for stage, batch_size in batches.items():
            at_once = self.launch.processes * (devices[stage].device_batch_size or 1)
            if batch_size % at_once:
                raise ValueError(
                    f"{stage}.batch_size ({batch_size}) must be a multiple of processes times device_batch_size ({at_once})"
                )
        return self

    def values(self) -> dict[str, Any]:
        """What a run is made from, as JSON has it; where things lie on a machine is no part of that."""
        return self.model_dump(mode="json", by_alias=True, exclude={"paths"})

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Self:
        """Parse and check the file; the only place that reads it.

        Raises:
            MissingError: if there is no such file.
            ParamsError: at the first key that is unknown, missing or out of range.
        """
        if not path.is_file():
            raise MissingError(
                f"Expected the parameters at {path.absolute()}, found no such file; run from the repository's root."
            )
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise ParamsError(f"Expected YAML in {path}, found text that does not parse: {error}.") from None
        except ValidationError as error:
            raise ParamsError(f"Expected valid parameters in {path}: {_complaints(error)}.") from None


def _complaints(error: ValidationError) -> str:
    """Every complaint in one line: key, reason, value."""
    rows = [(".".join(map(str, row["loc"])), row["msg"].lower(), row["input"]) for row in error.errors()]
    return "; ".join(f"{key}: {reason}, found {str(value)[:60]!r}" for key, reason, value in rows)
