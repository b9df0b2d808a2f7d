"""The choices a config offers: each an enum, resolved in one explicit place."""

from enum import Enum


class Weighting(Enum):
    """p_d from the recipe sizes S_d."""

    sqrt = "sqrt"  # paper, section 2.3
    uniform = "uniform"  # its ablation
    proportional = "proportional"
    temperature = "temperature"  # S_d^(1/T), with T of the config: 1 proportional, 2 sqrt, higher nearer to uniform


class Draw(Enum):
    """How the dataset of a group is drawn."""

    random = "random"  # independent draws, as the paper
    even = "even"  # low discrepancy: realised shares stay near p_d at every step


class Schedule(Enum):
    """How the learning rate falls after its warm-up."""

    cosine = "cosine"  # at every step, as the paper says
    lavis = "lavis"  # constant within an inner epoch, as LAVIS' iteration runner does (PAPER C.2)


class Wording(Enum):
    """How a sample's input is put into words for training."""

    instructions = "instructions"  # one of the templates of its task
    plain = "plain"  # the bare input: no instruction (Figure 4)
    dataset_names = "dataset_names"  # the bare input behind [Task:Dataset] (Figure 4)


class Reduction(Enum):
    """What the loss is a mean over, within one global step."""

    group = "group"  # mean over groups of token means: LAVIS' iteration runner under DDP
    token = "token"
    sample = "sample"


class Leakage(Enum):
    """What of a training split is trained on (an audit says what it shares with the evaluated ones)."""

    paper = "paper"  # all of it: official training splits only
    strict = "strict"  # no row whose picture is evaluated


class Stored(Enum):
    """In what the weights of a language model are held, whatever they are computed in."""

    auto = "auto"  # as their file has them
    float32 = "float32"
    bfloat16 = "bfloat16"


class Objective(Enum):
    """What a step is trained for."""

    instruct = "instruct"  # the response's likelihood under the language model; BLIP-2's second stage too
    stage1 = "stage1"  # BLIP-2's first: contrast, matching and generation of captions, without a language model
    language = "language"  # the response's likelihood after its text alone: what a language model is pretrained for


class SelectionSource(Enum):
    """On which rows a run's best checkpoint is chosen."""

    none = "none"  # on none: the last one is the best
    carved = "carved"  # on rows held back from training
    paper_guess = "paper_guess"  # on the columns of the paper's tables, which are then `selected on test`


class Purpose(Enum):
    instruction_tune = "instruction_tune"
    finetune = "finetune"
    evaluate = "evaluate"  # a published model: nothing is trained


class Resume(Enum):
    never = "never"
    auto = "auto"


class Requeue(Enum):
    """How a job that was told to stop comes back; under submitit its own handler does that, whatever is chosen here."""

    never = "never"
    exit = "exit"  # with code 75, which a cluster with RequeueExit=75 takes as a wish
    scontrol = "scontrol"  # `scontrol requeue` of the own job, at its time limit (SIGUSR1)


class OnNonFinite(Enum):
    """What a loss or gradient that is no number does."""

    stop = "stop"
    skip = "skip"  # the step, up to a limit


class OnFullDisk(Enum):
    """What a checkpoint, a row, a line of a list or a log entry does that cannot be written.

    The checkpoint of the end or of a stop ends the run in any case, and what is written at the start must be.
    """

    stop = "stop"
    go_on = "go_on"  # counted and named on stderr; the next one may find room


class MediaMode(Enum):
    copy = "copy"
    link = "link"


class Source(Enum):
    """Where rows are read from."""

    raw = "raw"  # official files under paths.raw
    hub = "hub"  # a faithful mirror on the Hugging Face hub


class Images(Enum):
    """What a question is asked about: its picture, or what stands in for it in a control."""

    own = "own"
    shuffled = "shuffled"  # every picture goes to another question
    deranged = "deranged"  # to another question of the same answer type
    none = "none"  # no picture and no queries: the language model alone reads the prompt
    told = "told"  # as none, behind the scene in words: what the language model can know (embedded world)

    @property
    def note(self) -> str:
        """What tables say of a control; nothing of a question about its own picture."""
        return NOTES[self]


NOTES = {
    Images.own: "",
    Images.shuffled: "pictures shuffled",
    Images.deranged: "pictures deranged within the answer type",
    Images.none: "no picture",
    Images.told: "scene told in words",
}


class PromptFormat(Enum):
    raw = "raw"  # queries, BOS, instruction: LAVIS
    chat = "chat"  # the user turn of `chat_template`, with the queries before the instruction


class Precision(Enum):
    fp32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"  # always refused, by a message that says why


class Strategy(Enum):
    """How the processes of a run share its work."""

    single = "single"  # one process, one device
    ddp = "ddp"  # every process has the whole model
    fsdp = "fsdp"  # the layers of the backbones are spread over the processes (FSDP2)


class Selfcheck(Enum):
    """Whether `train.py` proves its arithmetic instead of training."""

    false = "false"
    true = "true"
    planted = "planted"  # with a wrong average put in, which must be found
